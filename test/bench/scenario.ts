/** What a scenario is, and what most of them do: warm up, enqueue, wait until all is over, count. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Contest, Contestant, Settings } from './contestant.js';
import type { Cost } from './meter.js';
import { startMeter } from './meter.js';
import { residentMegabytes } from './processes.js';
import { createRig, type Rig } from './rig.js';

/** Figures by the name of their column. */
export type Figures = Readonly<Record<string, number>>;

export interface Subject {
  readonly name: string;
  measure(): Promise<Figures>;
}

export interface Scenario {
  readonly name: string;
  /** One sentence with the numbers in it. */
  readonly about: string;
  readonly subjects: readonly Subject[];
}

const LOOK_EVERY_MS = 250;
const GIVE_UP_MS = 1_800_000;
/** Letters of a prompt; the directives for the simulator stand behind them. */
const PROMPT_CHARS = 300;

export const SETTINGS: Settings = {
  workers: 1,
  submitsAtOnce: 50,
  pollsAtOnce: 50,
  downloadsAtOnce: 20,
  firstPollMs: 5000,
  pollEveryMs: 6000,
};

/** One video of 64 KB and no pictures, for the scenarios in which the queue is the subject. */
export const SMALL_VIDEO = 'size=64KB, poster=missing, last-frame=missing';

export function prompts(name: string, count: number, directives: (i: number) => string): string[] {
  return Array.from({ length: count }, (_, i) => {
    const begin = `${name} ${i}, a paper boat on a rainy street, `;
    return `${begin.padEnd(PROMPT_CHARS, 'slow pan, soft light, ')} [sim: ${directives(i)}]`;
  });
}

/** @param lookEveryMs longer where a look costs the simulator more than it answers. */
export async function until(
  name: string,
  isSo: () => Promise<boolean>,
  lookEveryMs = LOOK_EVERY_MS,
): Promise<void> {
  const giveUpAt = Date.now() + GIVE_UP_MS;
  while (!(await isSo())) {
    if (Date.now() > giveUpAt) throw new Error(`${name} did not come within ${GIVE_UP_MS / 1000} s`);
    await wait(lookEveryMs);
  }
}

/** A run on a rig of its own, with everything stopped at the end. */
export async function onRig<T>(
  contestant: Contestant,
  settings: Settings,
  run: (rig: Rig, contest: Contest) => Promise<T>,
): Promise<T> {
  const rig = await createRig();
  try {
    const contest = await contestant.start(rig, settings);
    try {
      return await run(rig, contest);
    } finally {
      await contest.close();
    }
  } finally {
    await rig.close();
  }
}

/** Code that has run and a schedule that knows such tasks: what a worker is after its first minutes. */
export async function warmUp(
  contest: Contest,
  count: number,
  directives: (i: number) => string,
): Promise<void> {
  const before = await contest.over();
  await contest.enqueue(prompts('warm', count, directives));
  await until('the warm-up', async () => (await contest.over()) >= before + count);
}

/** CPU and round trips of a stretch, for each of `count` generations. */
export function perGeneration(cost: Cost, count: number): Figures {
  return {
    cpu: (1000 * (cost.workers + cost.producer + cost.store)) / count,
    'cpu worker': (1000 * cost.workers) / count,
    'cpu producer': (1000 * cost.producer) / count,
    'cpu store': (1000 * cost.store) / count,
    'cpu simulator': (1000 * cost.simulator) / count,
    ...(cost.commands > 0.5 * count ? { commands: cost.commands / count, bytes: cost.bytes / count } : {}),
    polls: cost.polls / count,
  };
}

/** Enqueues so many and waits for their end, counting. */
export async function drain(
  rig: Rig,
  contest: Contest,
  orders: readonly string[],
  whileRunning: () => Promise<Figures> = () => Promise.resolve({}),
): Promise<Figures> {
  const before = await contest.over();
  const count = await startMeter(rig, contest);
  await contest.enqueue(orders);
  const seen = await whileRunning();
  await until('the end', async () => (await contest.over()) >= before + orders.length);
  const cost = await count();
  const resident = await Promise.all(contest.workers.map(({ pid }) => residentMegabytes(pid)));
  return {
    rate: orders.length / cost.seconds,
    ...perGeneration(cost, orders.length),
    rss: Math.max(...resident.map(({ peak }) => peak)),
    ...seen,
  };
}
