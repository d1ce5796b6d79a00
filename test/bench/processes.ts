/** Processes of a benchmark, and what Linux counts of them: `/proc`, so that nobody has to measure himself. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';

/** Ticks of `/proc/<pid>/stat` per second; Linux has told programs 100 since long ago. */
const TICKS_PER_SECOND = 100;
const STOP_WITHIN_MS = 20_000;

export interface Program {
  readonly pid: number;
  readonly child: ChildProcess;
  /** SIGTERM, and SIGKILL if it does not end. */
  stop(): Promise<void>;
}

/** However the benchmark ends, nothing of it goes on. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/**
 * Starts a Node program with nothing of our environment but `PATH` and `HOME`; what it says on standard error is
 * passed on. With `BENCH_CPU_PROF=<folder>` in our environment each program leaves a CPU profile there.
 */
export function startProgram(
  file: string,
  parameters: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Program {
  const { PATH = '', HOME = '', BENCH_CPU_PROF: profiles } = process.env;
  const child = fork(file, [...parameters], {
    env: { PATH, HOME, ...environment },
    execArgv: profiles ? ['--cpu-prof', `--cpu-prof-dir=${profiles}`] : [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit');
  running.add(child);
  child.once('exit', () => running.delete(child));
  return {
    pid: child.pid ?? 0,
    child,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** Ctrl-C and SIGTERM end the benchmark with all its programs, instead of leaving them behind. */
export function endOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
}

/** CPU that a process has used since its start, in seconds, user and system together. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may hold anything; utime and stime are the 14th and 15th field.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Resident memory of a process in megabytes: now, and at its peak. */
export async function residentMegabytes(pid: number): Promise<{ now: number; peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const read = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? NaN) / 1024;
  return { now: read('VmRSS'), peak: read('VmHWM') };
}
