/**
 * `reelhaul demo`: the whole way of three generations on real parts that it starts itself and stops again: a Redis, the
 * provider simulator, a worker process. With `--live` one generation against the real provider instead.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { createReelhaul } from '../../reelhaul.js';
import { readConfig } from '../../config/config.js';
import { ReelhaulError } from '../../errors.js';
import type { Generation } from '../../generation/record.js';
import type { GenerationRequestInput } from '../../generation/request.js';
import { isTerminal } from '../../generation/states.js';
import { startSimulator } from '../../simulator/simulator.js';
import { launchRedis } from './redis-server.js';
import { createProgressLines, summaryTable } from './screen.js';

const GIVE_UP_AFTER_MS = 60_000;
const LIVE_GIVE_UP_AFTER_MS = 45 * 60_000;
const LOOK_EVERY_MS = 150;
const WORKER_STOP_MS = 8000;

const PROMPTS = [
  'A lighthouse in a storm, waves breaking over the rocks [sim: duration=3s]',
  'A paper boat sailing down a rainy street [sim: duration=4s]',
  'Morning fog lifting from a pine forest [sim: duration=5s]',
];

export interface DemoOptions {
  /** Set for a run against the real provider: it will be billed. */
  readonly live: { readonly prompt: string; readonly image: string | undefined } | null;
  readonly write: (text: string) => void;
  readonly isTerminal: boolean;
  /** The program that runs a worker: this command line itself. */
  readonly cliFile: string;
  readonly environment: NodeJS.ProcessEnv;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Runs the demo. @returns whether every generation succeeded. Everything it started is stopped by then. */
export async function runDemo(options: DemoOptions): Promise<boolean> {
  const { live, write, environment, signal } = options;
  const cleanups: (() => Promise<unknown>)[] = [];
  try {
    const redis = await launchRedis();
    cleanups.push(() => redis.stop());
    write(`Redis      ${redis.description}, port ${redis.port}\n`);

    const provider = live ? { url: readConfig(environment).COMETAPI_BASE_URL } : await startSimulator();
    if ('close' in provider) cleanups.push(() => provider.close());
    write(`Provider   ${live ? provider.url : `the simulator at ${provider.url}: nothing is billed`}\n`);

    const folder = await mkdtemp(join(tmpdir(), 'reelhaul-demo-'));
    cleanups.push(() => rm(folder, { recursive: true, force: true }));
    const archive = resolve('archive');
    const settings = workerEnvironment(options, redis.url, provider.url, archive);
    const worker = await startWorker(options.cliFile, settings, join(folder, 'worker.log'), signal);
    cleanups.push(() => stopWorker(worker));
    write(`Worker     process ${worker.pid}, all stages; files go to ${archive}\n\n`);

    const reelhaul = await createReelhaul({ config: readConfig(settings) });
    cleanups.push(() => reelhaul.close());
    const requests: GenerationRequestInput[] = live
      ? [{ prompt: live.prompt, ...(live.image === undefined ? {} : { image: live.image }) }]
      : PROMPTS.map((prompt) => ({ prompt, image: 'https://example.com/still.png' }));
    const ids: string[] = [];
    for (const request of requests) ids.push((await reelhaul.enqueue(request)).id);

    const look = () => Promise.all(ids.map((id) => reelhaul.get(id)));
    const generations = await follow(look, worker, options);
    write(`\n${summaryTable(generations, archive)}\n`);
    if (generations.every(({ state }) => state === 'succeeded')) return true;
    write(
      `\nThe worker's last words:\n${(await readFile(join(folder, 'worker.log'), 'utf8')).slice(-3000)}\n`,
    );
    return false;
  } finally {
    for (const cleanup of cleanups.toReversed()) await cleanup().catch(() => {});
  }
}

function workerEnvironment(
  { live, environment }: DemoOptions,
  redisUrl: string,
  providerUrl: string,
  archive: string,
): NodeJS.ProcessEnv {
  const own = {
    PATH: environment['PATH'],
    HOME: environment['HOME'],
    NODE_OPTIONS: environment['NODE_OPTIONS'],
  };
  const common = { ...own, REDIS_URL: redisUrl, STORAGE_URL: `file:${archive}`, SHUTDOWN_TIMEOUT_MS: '5000' };
  if (live) return { ...environment, ...common };
  return {
    ...common,
    COMETAPI_KEY: 'demo-key-of-the-simulator',
    COMETAPI_BASE_URL: providerUrl,
    ARCHIVE_ALLOW_HOSTS: new URL(providerUrl).host,
    // Its picture is nowhere: the simulator does not fetch it.
    INPUT_URL_CHECK: 'false',
    // The simulator is quick and asks for no patience; the defaults are made for the real provider.
    POLL_FIRST_DELAY_MS: '500',
    POLL_MIN_INTERVAL_MS: '500',
    POLL_MAX_INTERVAL_MS: '1000',
  };
}

async function startWorker(
  cliFile: string,
  env: NodeJS.ProcessEnv,
  logFile: string,
  signal: AbortSignal,
): Promise<ChildProcess> {
  const log = createWriteStream(logFile);
  await once(log, 'open');
  const child = spawn(process.execPath, [cliFile, 'worker'], {
    env,
    stdio: ['ignore', log, log],
    detached: true,
  });
  // However this process ends, a worker that was meant for the demo must not go on; with --live it spends money.
  const leaveNothing = () => void child.kill('SIGKILL');
  process.on('exit', leaveNothing);
  child.once('exit', () => process.off('exit', leaveNothing));
  await Promise.race([once(child, 'spawn', { signal }), once(child, 'error', { signal })]);
  return child;
}

async function stopWorker(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), WORKER_STOP_MS);
  await exited;
  clearTimeout(timer);
}

async function follow(
  look: () => Promise<Generation[]>,
  worker: ChildProcess,
  { live, write, isTerminal: tty, signal }: DemoOptions,
): Promise<Generation[]> {
  const lines = createProgressLines(write, tty);
  const giveUpAt = Date.now() + (live ? LIVE_GIVE_UP_AFTER_MS : GIVE_UP_AFTER_MS);
  for (;;) {
    const generations = await look();
    lines.show(generations);
    if (generations.every(({ state }) => isTerminal(state))) return generations;
    if (worker.exitCode !== null || worker.signalCode !== null) return generations;
    if (Date.now() > giveUpAt) throw new ReelhaulError('demo_timeout', 'The demo did not finish in time.');
    await wait(LOOK_EVERY_MS, undefined, { signal });
  }
}
