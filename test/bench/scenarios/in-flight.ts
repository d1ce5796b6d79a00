/** Many at once for 20 s each: what waiting costs, in CPU and in memory. */
import type { Contestant } from '../contestant.js';
import { countRedis } from '../redis-meter.js';
import { drain, onRig, prompts, SETTINGS, SMALL_VIDEO, until, warmUp, type Scenario } from '../scenario.js';
import { detectionDelays } from '../simulator/wire.js';
import { quantile } from '../figures.js';

const TASKS_OF_20_S = () => `duration=20s, ${SMALL_VIDEO}`;
/** So many before: the code has run, and the schedule knows such tasks. */
const WARM = 500;
/** reelhaul polls by its own schedule, with its defaults. */
const settings = { ...SETTINGS, pollEveryMs: 2000 };

export function inFlight(contestants: readonly Contestant[], scale: number): Scenario {
  // As many as the yardsticks can poll on two cores: beyond it they poll less than they are told.
  const count = Math.round(1000 * scale);
  return {
    name: 'in-flight',
    about: `${count.toLocaleString('en')} at once for 20 s, one video of 64 KB each, after ${WARM} such tasks; the yardsticks poll every 2 s.`,
    subjects: contestants.map((contestant) => ({
      name: contestant.name,
      measure: () =>
        onRig(contestant, settings, async (rig, contest) => {
          await warmUp(contest, WARM, TASKS_OF_20_S);
          const empty = await countRedis(rig.client);
          const figures = await drain(rig, contest, prompts('many', count, TASKS_OF_20_S), async () => {
            await until(
              'all to be accepted',
              async () => {
                const { tasks } = await rig.simulator.ask('totals', 'totals');
                return tasks >= count + WARM;
              },
              1000,
            );
            const full = await countRedis(rig.client);
            return { 'memory in flight': (full.dataBytes - empty.dataBytes) / count };
          });
          const { tasks } = await rig.simulator.ask('tasks', 'tasks');
          const delays = detectionDelays(tasks.slice(WARM));
          const after = await countRedis(rig.client);
          return {
            ...figures,
            'memory finished': (after.dataBytes - empty.dataBytes) / count,
            'delay p50': quantile(delays, 0.5) / 1000,
            'delay p95': quantile(delays, 0.95) / 1000,
          };
        }),
    })),
  };
}
