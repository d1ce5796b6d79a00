/** One way of getting videos made: what a scenario can ask of reelhaul, and of each yardstick beside it. */
import type { Program } from './processes.js';
import type { Rig } from './rig.js';

/** The same for all, where a contestant has such a thing. */
export interface Settings {
  /** Worker processes. */
  readonly workers: number;
  readonly submitsAtOnce: number;
  readonly pollsAtOnce: number;
  readonly downloadsAtOnce: number;
  /** From acceptance to the first poll. */
  readonly firstPollMs: number;
  /** Between two polls; reelhaul's own schedule decides, with its defaults, when this is null for it. */
  readonly pollEveryMs: number;
}

export interface Contestant {
  readonly name: string;
  /** Starts its processes. `begin: false` leaves the workers for `begin()`. */
  start(rig: Rig, settings: Settings): Promise<Contest>;
}

/** A contestant that runs. */
export interface Contest {
  /** Enqueues from this process, whose CPU then counts as the producer's; resolves when it is as safe as it gets. */
  enqueue(prompts: readonly string[]): Promise<void>;
  /** How many are over, with their files on disk. */
  over(): Promise<number>;
  /** Starts (more) worker processes. */
  work(count: number): void;
  readonly workers: readonly Program[];
  /** CPU of what keeps the jobs, in seconds: Redis or PostgreSQL; null when nothing does. */
  storeCpuSeconds: (() => Promise<number>) | null;
  close(): Promise<void>;
}
