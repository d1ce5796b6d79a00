/** How late an end is noticed, and with how many polls, on tasks of different lengths. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Contestant } from '../contestant.js';
import { quantile } from '../figures.js';
import { createDice, logNormal } from '../polling/distributions.js';
import { onRig, prompts, SETTINGS, until, warmUp, type Scenario } from '../scenario.js';
import { detectionDelays } from '../simulator/wire.js';

const MEDIAN_MS = 8000;
const SIGMA = 0.4;
const EVERY_MS = 100;
const WARM_UP = 100;

export function latency(contestants: readonly Contestant[], scale: number): Scenario {
  const count = Math.round(300 * scale);
  return {
    name: 'latency',
    about: `${count} generations, ten a second, log-normal around 8 s (sigma 0.4), after 100 such tasks.`,
    subjects: contestants.map((contestant) => ({
      name: contestant.name,
      measure: () =>
        onRig(contestant, SETTINGS, async (rig, contest) => {
          const dice = createDice(7);
          const directives = () => `duration=${Math.round(logNormal(dice, MEDIAN_MS, SIGMA))}ms`;
          await warmUp(contest, WARM_UP, directives);
          for (const prompt of prompts('timely', count, directives)) {
            await contest.enqueue([prompt]);
            await wait(EVERY_MS);
          }
          await until('the end', async () => (await contest.over()) >= WARM_UP + count);
          const { tasks } = await rig.simulator.ask('tasks', 'tasks');
          const counted = tasks.filter(({ prompt }) => prompt.startsWith('timely'));
          const delays = detectionDelays(counted);
          return {
            polls: counted.reduce((sum, { polls }) => sum + polls, 0) / count,
            'delay p50': quantile(delays, 0.5) / 1000,
            'delay p95': quantile(delays, 0.95) / 1000,
            'delay p99': quantile(delays, 0.99) / 1000,
          };
        }),
    })),
  };
}
