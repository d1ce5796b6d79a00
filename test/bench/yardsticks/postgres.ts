/** A PostgreSQL of the benchmark's own on a free loopback port, where it is installed. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';
import { findOnPath, freePort } from '../../../src/cli/demo/redis-server.js';
import { cpuSeconds } from '../processes.js';

const run = promisify(execFile);
const READY_WITHIN_MS = 30_000;
/** Of nobody: PostgreSQL refuses to run as root. */
const NOBODY = 65_534;

export interface LaunchedPostgres {
  readonly url: string;
  /** CPU of all its processes, those that have ended included. */
  cpuSeconds(): Promise<number>;
  stop(): Promise<void>;
}

/** The folder of its programs; null when it is not installed. */
export async function findPostgres(): Promise<string | null> {
  const found = await findOnPath(['postgres']);
  return found === null || (await findOnPath(['initdb'])) === null ? null : dirname(found);
}

/** CPU of a process and of its children: of those that live by themselves, of those that ended by what it was told. */
async function familyCpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ended = (Number(fields[13]) + Number(fields[14])) / 100;
  const threads = await readdir(`/proc/${pid}/task`);
  const lists = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch(() => '')),
  );
  const children = lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
  const living = await Promise.all(children.map((child) => cpuSeconds(child).catch(() => 0)));
  return (await cpuSeconds(pid)) + ended + living.reduce((sum, one) => sum + one, 0);
}

export async function launchPostgres(): Promise<LaunchedPostgres> {
  const programs = (await findPostgres()) ?? '';
  const folder = await mkdtemp(join(tmpdir(), 'reelhaul-bench-pg-'));
  const isRoot = process.getuid?.() === 0;
  const as = isRoot ? { uid: NOBODY, gid: NOBODY } : {};
  if (isRoot) await chown(folder, NOBODY, NOBODY);
  const data = join(folder, 'data');
  await run(join(programs, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'bench', '--no-sync'], {
    ...as,
    cwd: folder,
  });
  const port = await freePort();
  const settings = ['-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=${folder}`];
  const server = spawn(join(programs, 'postgres'), ['-D', data, '-p', String(port), ...settings], {
    ...as,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  server.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4000)));
  const pid = server.pid ?? 0;
  const exited = once(server, 'exit');
  const giveUpAt = Date.now() + READY_WITHIN_MS;
  while (!said.includes('ready to accept connections')) {
    if (server.exitCode !== null || Date.now() > giveUpAt) {
      throw new Error(`PostgreSQL did not start: ${said.trim()}`);
    }
    await wait(100);
  }
  return {
    url: `postgres://bench@127.0.0.1:${port}/postgres`,
    cpuSeconds: () => familyCpuSeconds(pid),
    async stop() {
      // Fast: what is still connected is cut off.
      server.kill('SIGINT');
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
