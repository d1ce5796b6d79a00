/**
 * `npm run rolling-deploy`: workers of an older version (built from a commit) and of this one side by side, under load.
 * One after the other is replaced, with work running: a new one is started, waited for, and an old one gets SIGTERM; then
 * back again, and forth, as often as asked. Apps of both versions enqueue all the while. It ends with a table, and exits
 * non-zero if any generation has not exactly one task, did not succeed, or has a file that differs from the provider's.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { readConfig } from '../../src/config/config.js';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import type { Generation } from '../../src/generation/record.js';
import { isTerminal } from '../../src/generation/states.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { billsPerGeneration, startSimulator } from '../../src/simulator/simulator.js';
import { fileDigest } from '../support/digest.js';
import { buildOldVersion, findCommit } from './old-version.js';

const KEY = 'rolling-key-0123456789';
const image = 'https://example.com/still.png';

const { values: flags } = parseArgs({
  options: {
    /** The older version: any name of a commit. Default: as `findCommit` says. */
    from: { type: 'string' },
    generations: { type: 'string', default: '400' },
    workers: { type: 'string', default: '3' },
    /** How often all workers are replaced; every second time by the older version again. */
    rolls: { type: 'string', default: '5' },
    'time-limit-s': { type: 'string', default: '300' },
    verbose: { type: 'boolean', default: false },
  },
});
const wanted = {
  generations: Number(flags.generations),
  workers: Number(flags.workers),
  rolls: Number(flags.rolls),
};

const commit = findCommit(flags.from);
if (commit === null) {
  process.stderr.write(
    `expected --from to be a commit of this clone, got ${flags.from ?? 'a clone without history'}\n`,
  );
  process.exit(2);
}
const startedAt = Date.now();
const giveUpAt = startedAt + Number(flags['time-limit-s']) * 1000;
const old = buildOldVersion(commit);
const redis = await launchRedis();
const simulator = await startSimulator({ apiKey: KEY, script: 'submit-delay=400ms, duration=1500ms' });
const archive = await mkdtemp(join(tmpdir(), 'reelhaul-rolling-'));
const environment: Record<string, string> = {
  COMETAPI_KEY: KEY,
  COMETAPI_BASE_URL: simulator.url,
  REDIS_URL: redis.url,
  STORAGE_URL: `file:${archive}`,
  ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost',
  INPUT_URL_CHECK: 'false',
  LOG_LEVEL: 'info',
  SUBMIT_CONCURRENCY: '5',
  POLL_FIRST_DELAY_MS: '200',
  POLL_MIN_INTERVAL_MS: '300',
  POLL_MAX_INTERVAL_MS: '2000',
  SWEEP_INTERVAL_MS: '2000',
  SHUTDOWN_TIMEOUT_MS: '20000',
};

interface Worker {
  readonly child: ChildProcess;
  readonly exited: Promise<number | string>;
  output(): string;
}
const versions = { old: old.cliFile, new: fileURLToPath(new URL('../../src/cli/main.js', import.meta.url)) };
type Version = keyof typeof versions;
const running = new Set<Worker>();
const stops: { readonly tookMs: number; readonly exit: number | string }[] = [];

/** Starts a worker and waits until it takes jobs. */
async function start(version: Version): Promise<Worker> {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, [versions[version], 'worker'], {
    env: { PATH, HOME, ...environment },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
  const worker = { child, exited, output: () => output };
  running.add(worker);
  while (!output.includes('worker started')) {
    if (child.exitCode !== null || Date.now() > giveUpAt)
      throw new Error(`a worker did not start: ${output}`);
    await wait(20);
  }
  return worker;
}

async function stop(worker: Worker): Promise<void> {
  const at = Date.now();
  worker.child.kill('SIGTERM');
  const exit = await worker.exited;
  running.delete(worker);
  stops.push({ tookMs: Date.now() - at, exit });
  if (flags.verbose) process.stderr.write(worker.output());
}

/** Apps are deployed at other times than workers: one of each version enqueues. */
const ofOld = (file: string) => import(pathToFileURL(join(old.cliFile, '../..', file)).href);
const { createReelhaul: createOldReelhaul } = (await ofOld('reelhaul.js')) as {
  createReelhaul: typeof createReelhaul;
};
const { readConfig: readOldConfig } = (await ofOld('config/config.js')) as { readConfig: typeof readConfig };
const reelhaul = await createReelhaul({ config: readConfig(environment) });
const oldReelhaul = await createOldReelhaul({ config: readOldConfig(environment) });
const ids: string[] = [];
let rolled = false;

async function enqueueAll(): Promise<void> {
  for (let i = 0; i < wanted.generations; i++) {
    const app = i % 2 === 0 ? reelhaul : oldReelhaul;
    const { id } = await app.enqueue({ prompt: `rolling ${i}`, image }, { idempotencyKey: `rolling-${i}` });
    ids.push(id);
    // Spread over all rolls: there is work at every stage whenever a worker stops.
    await wait(wanted.rolls * 10);
  }
}

async function rollAll(): Promise<void> {
  let fleet: Worker[] = [];
  for (let i = 0; i < wanted.workers; i++) fleet.push(await start('old'));
  for (let roll = 0; roll < wanted.rolls; roll++) {
    const version: Version = roll % 2 === 0 ? 'new' : 'old';
    const next: Worker[] = [];
    for (const worker of fleet) {
      next.push(await start(version));
      await stop(worker);
    }
    fleet = next;
  }
  rolled = true;
}

async function settled(): Promise<Generation[]> {
  for (;;) {
    const generations = await Promise.all(ids.map((id) => reelhaul.get(id)));
    const over =
      generations.length === wanted.generations && generations.every(({ state }) => isTerminal(state));
    if ((rolled && over) || Date.now() > giveUpAt) return generations;
    await wait(300);
  }
}

const rolling = Promise.all([rollAll(), enqueueAll()]);
let generations: Generation[] = [];
try {
  await rolling;
  generations = await settled();
} finally {
  await Promise.all([...running].map(stop));
}

const ledger = simulator.ledger();
const bills = [...billsPerGeneration(ledger).values()].map(({ tasks }) => tasks);
const videos = new Map(ledger.tasks.map((task) => [task.taskId, task.assets.video.sha256]));
const succeeded = generations.filter(({ state }) => state === 'succeeded');
let identical = 0;
for (const { assets, taskId } of succeeded) {
  const stored = await fileDigest(join(archive, assets!.video.key));
  if (stored === assets!.video.sha256 && stored === videos.get(taskId ?? '')) identical += 1;
}
const notInOrder = stops.filter(({ exit }) => exit !== 0).length;
const rows: [string, string | number][] = [
  ['older version', commit.slice(0, 12)],
  ['generations', `${generations.length}, half enqueued by an app of each version`],
  [
    'workers replaced with work running',
    `${wanted.rolls * wanted.workers} (${wanted.rolls} times all, old and new in turn)`,
  ],
  ['succeeded', succeeded.length],
  ['submits received', ledger.totals.submits],
  ['provider tasks created', ledger.totals.tasksCreated],
  ['tasks per generation (min, max)', `${Math.min(...bills)}, ${Math.max(...bills)}`],
  ['videos identical to the provider’s', identical],
  ['workers that did not end with 0', notInOrder],
  ['longest stop (ms)', Math.max(...stops.map(({ tookMs }) => tookMs))],
  ['seconds', ((Date.now() - startedAt) / 1000).toFixed(0)],
];
const width = Math.max(...rows.map(([label]) => label.length));
process.stdout.write(`${rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`).join('\n')}\n`);
for (const { id, state, failure } of generations)
  if (state !== 'succeeded') process.stdout.write(`${state}: ${id} ${failure?.message ?? ''}\n`);

await reelhaul.close();
await oldReelhaul.close();
await simulator.close();
await redis.stop();
await rm(archive, { recursive: true, force: true });
old.remove();
const all = wanted.generations;
const good =
  succeeded.length === all &&
  identical === all &&
  bills.length === all &&
  bills.every((tasks) => tasks === 1) &&
  ledger.totals.tasksCreated === all &&
  notInOrder === 0;
process.stdout.write(good ? 'kept: nothing lost, nothing twice\n' : 'BROKEN: see above\n');
process.exit(good ? 0 : 1);
