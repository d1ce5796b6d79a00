/** So many in flight that nothing else counts: the cost of one poll that finds nothing, and of remembering a generation. */
import { setTimeout as wait } from 'node:timers/promises';
import { startMeter } from '../meter.js';
import { residentMegabytes } from '../processes.js';
import { countRedis } from '../redis-meter.js';
import { reelhaul } from '../reelhaul.js';
import { onRig, prompts, SETTINGS, until, type Scenario } from '../scenario.js';

const TASKS_OF_AN_HOUR = () => 'duration=1h';
const WATCH_MS = 40_000;
/** The books of so many tasks are long. */
const BOOKS_EVERY_MS = 5000;

export function steady(scale: number): Scenario {
  const count = Math.round(20_000 * scale);
  return {
    name: 'steady',
    about: `${count.toLocaleString('en')} in flight for an hour each, watched for ${WATCH_MS / 1000} s by one worker, default schedule.`,
    subjects: [
      {
        name: reelhaul.name,
        measure: () =>
          onRig(reelhaul, SETTINGS, async (rig, contest) => {
            const empty = await countRedis(rig.client);
            await contest.enqueue(prompts('long', count, TASKS_OF_AN_HOUR));
            await until(
              'all to be accepted',
              async () => {
                const { tasks } = await rig.simulator.ask('totals', 'totals');
                return tasks >= count;
              },
              BOOKS_EVERY_MS,
            );
            // The first look at each is over, and what remains are polls that find nothing.
            await wait(2 * SETTINGS.firstPollMs);
            const full = await countRedis(rig.client);
            const watching = await startMeter(rig, contest);
            await wait(WATCH_MS);
            const cost = await watching();
            const resident = await residentMegabytes(contest.workers[0]!.pid);
            return {
              'polls per s': cost.polls / cost.seconds,
              'commands per poll': cost.commands / cost.polls,
              'bytes per poll': cost.bytes / cost.polls,
              'cpu worker per 1,000 polls': (1000 * cost.workers) / cost.polls,
              'cpu store per 1,000 polls': (1000 * cost.store) / cost.polls,
              'memory in flight': (full.dataBytes - empty.dataBytes) / count,
              rss: resident.now,
            };
          }),
      },
    ],
  };
}
