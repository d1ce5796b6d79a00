/** The processes of a chaos run: workers and the callback server, killed and replaced. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const workerFile = fileURLToPath(new URL('worker.js', import.meta.url));
const cliFile = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const STOP_WITHIN_MS = 15_000;

export interface Fleet {
  /** SIGKILLs that came from outside, and those that a worker did to itself at a named point. */
  readonly kills: { outside: number; atPoints: number; frozen: number };
  /** Those of `strikeFirst` that were struck. */
  readonly struck: ReadonlySet<string>;
  /** Kills one worker at random, but none that is yet to strike first; it is replaced at once. */
  killOne(dice: number): void;
  /** Stops one worker at random with SIGSTOP, and lets it go on after so long. */
  freezeOne(dice: number, forMs: number): void;
  /** Lets all go on. */
  thaw(): void;
  /** New workers, also replacements, no longer kill themselves. */
  calmDown(): void;
  /** Takes no replacements any more, and stops everything in order. */
  stop(): Promise<void>;
}

export interface FleetOptions {
  readonly workers: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly points: readonly string[];
  readonly probability: number;
  /** The first workers kill themselves for sure, each at its own of these points. */
  readonly strikeFirst?: readonly string[];
  /** Called after each kill, with the number so far. */
  readonly onKill: (kills: number) => void;
  readonly write: (text: string) => void;
}

export function startFleet({
  workers,
  environment,
  points,
  probability,
  strikeFirst = [],
  onKill,
  write,
}: FleetOptions): Fleet {
  const kills = { outside: 0, atPoints: 0, frozen: 0 };
  const frozen = new Map<ChildProcess, NodeJS.Timeout>();
  const { PATH = '', HOME = '' } = process.env;
  const running = new Set<ChildProcess>();
  const killed = new Set<ChildProcess>();
  let stopping = false;
  let calm = false;

  function start(argument: readonly string[], extra: Record<string, string>): ChildProcess {
    const child = spawn(process.execPath, [...process.execArgv, ...argument], {
      env: { PATH, HOME, ...environment, ...extra },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr?.on('data', (chunk: Buffer) => write(`[${child.pid}] ${chunk.toString()}`));
    running.add(child);
    child.once('exit', () => running.delete(child));
    return child;
  }

  const struck = new Set<string>();
  /** Those that strike first, and have not yet. */
  const strikers = new Set<ChildProcess>();

  /** @param first the point at which it strikes for sure. */
  function startWorker(first?: string): void {
    const extra = {
      CHAOS_POINTS: first ?? points.join(','),
      CHAOS_PROBABILITY: first === undefined ? String(probability) : '1',
    };
    const child = start([workerFile], calm && first === undefined ? {} : extra);
    workerProcesses.add(child);
    if (first !== undefined) strikers.add(child);
    child.once('exit', (_, signal) => {
      workerProcesses.delete(child);
      strikers.delete(child);
      if (stopping) return;
      if (signal === 'SIGKILL') {
        if (killed.has(child)) kills.outside += 1;
        else {
          kills.atPoints += 1;
          if (first !== undefined) struck.add(first);
        }
        onKill(kills.outside + kills.atPoints);
      }
      startWorker();
    });
  }

  function thaw(child: ChildProcess): void {
    clearTimeout(frozen.get(child));
    frozen.delete(child);
    child.kill('SIGCONT');
  }

  const workerProcesses = new Set<ChildProcess>();
  for (let i = 0; i < workers; i++) startWorker(strikeFirst[i]);
  start([cliFile, 'serve'], {});

  return {
    kills,
    struck,
    killOne(dice) {
      const all = [...workerProcesses].filter((child) => !killed.has(child) && !strikers.has(child));
      const child = all[Math.floor(dice * all.length)];
      if (!child) return;
      killed.add(child);
      child.kill('SIGKILL');
    },
    freezeOne(dice, forMs) {
      const all = [...workerProcesses].filter((child) => !killed.has(child) && !frozen.has(child));
      const child = all[Math.floor(dice * all.length)];
      if (!child) return;
      kills.frozen += 1;
      child.kill('SIGSTOP');
      frozen.set(
        child,
        setTimeout(() => thaw(child), forMs),
      );
    },
    thaw() {
      for (const child of frozen.keys()) thaw(child);
    },
    calmDown() {
      calm = true;
    },
    async stop() {
      stopping = true;
      await Promise.all(
        [...running].map(async (child) => {
          const exited = once(child, 'exit');
          child.kill('SIGTERM');
          const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
          await exited;
          clearTimeout(timer);
        }),
      );
    },
  };
}
