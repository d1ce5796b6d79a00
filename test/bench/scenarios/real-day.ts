/** What a day is made of: tasks of a minute or so that come a few a second, and videos of 8 MB. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Contestant } from '../contestant.js';
import { quantile } from '../figures.js';
import { startMeter } from '../meter.js';
import { createDice, logNormal } from '../polling/distributions.js';
import { residentMegabytes } from '../processes.js';
import { onRig, perGeneration, prompts, SETTINGS, until, type Figures, type Scenario } from '../scenario.js';
import { detectionDelays } from '../simulator/wire.js';

const MEDIAN_MS = 60_000;
const SIGMA = 0.35;
const EVERY_MS = 200;
/** The longest of all tasks would otherwise make a round a minute longer, and say nothing. */
const LONGEST_MS = MEDIAN_MS * Math.exp(2 * SIGMA);

const day = (contestant: Contestant, count: number): Promise<Figures> =>
  onRig(contestant, SETTINGS, async (rig, contest) => {
    const dice = createDice(11);
    const directives = () => {
      const durationMs = Math.min(logNormal(dice, MEDIAN_MS, SIGMA), LONGEST_MS);
      return `duration=${Math.round(durationMs)}ms, size=8MB, poster=missing, last-frame=missing`;
    };
    const counting = await startMeter(rig, contest);
    for (const prompt of prompts('daily', count, directives)) {
      await contest.enqueue([prompt]);
      await wait(EVERY_MS);
    }
    await until('the end', async () => (await contest.over()) >= count);
    // The producers of all share this process.
    const { 'cpu producer': _, ...figures } = perGeneration({ ...(await counting()), producer: 0 }, count);
    const { tasks } = await rig.simulator.ask('tasks', 'tasks');
    const delays = detectionDelays(tasks);
    const resident = await Promise.all(contest.workers.map(({ pid }) => residentMegabytes(pid)));
    return {
      ...figures,
      'delay p50': quantile(delays, 0.5) / 1000,
      'delay p95': quantile(delays, 0.95) / 1000,
      rss: Math.max(...resident.map(({ peak }) => peak)),
    };
  });

/** All run at the same time, since a round takes as long as its longest task; each on a rig of its own. */
export function realDay(contestants: readonly Contestant[], scale: number): Scenario {
  const count = Math.round(160 * scale);
  const running = new Map<Contestant, Promise<Figures>>();
  return {
    name: 'real-day',
    about: `${count} generations, five a second, log-normal around 60 s (sigma 0.35, cut at two), one video of 8 MB each, nothing learnt before. All at the same time, their producers not counted.`,
    subjects: contestants.map((contestant) => ({
      name: contestant.name,
      measure() {
        if (running.size === 0) for (const one of contestants) running.set(one, day(one, count));
        const figures = running.get(contestant)!;
        running.delete(contestant);
        return figures;
      },
    })),
  };
}
