/** What a stretch of a run costs, whoever runs: CPU by process, commands and bytes of Redis, seconds on the clock. */
import type { Contest } from './contestant.js';
import { cpuSeconds } from './processes.js';
import { countRedis } from './redis-meter.js';
import type { Rig } from './rig.js';

export interface Cost {
  readonly seconds: number;
  /** CPU in seconds. */
  readonly workers: number;
  readonly producer: number;
  readonly store: number;
  readonly simulator: number;
  readonly commands: number;
  readonly bytes: number;
  readonly polls: number;
}

/** Begins to count; the function that it returns tells what has come together since. */
export async function startMeter(rig: Rig, contest: Contest): Promise<() => Promise<Cost>> {
  const take = async (): Promise<Cost> => {
    const { user, system } = process.cpuUsage();
    const [workers, simulator, redis, store] = await Promise.all([
      Promise.all(contest.workers.map(({ pid }) => cpuSeconds(pid))),
      cpuSeconds(rig.simulator.program.pid),
      countRedis(rig.client),
      contest.storeCpuSeconds?.() ?? 0,
    ]);
    const seconds = performance.now() / 1000;
    const { polls } = await rig.simulator.ask('totals', 'totals');
    return {
      seconds,
      workers: workers.reduce((sum, one) => sum + one, 0),
      producer: (user + system) / 1e6,
      store,
      simulator,
      commands: redis.commands,
      bytes: redis.bytes,
      polls,
    };
  };
  const before = await take();
  return async () => {
    const after = await take();
    const names = Object.keys(after) as (keyof Cost)[];
    return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Cost;
  };
}
