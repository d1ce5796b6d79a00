/**
 * `npm run chaos`: real worker processes against the simulator, with faults of every class, workers killed at random
 * moments and at named points of the submit path, Redis killed and restarted. It ends with a table, and exits non-zero
 * if any generation has two tasks, is lost, is neither over nor in the inbox, or has a file that differs from the
 * provider's, if the spend does not agree with the provider's books, or if a cap or a budget was exceeded.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { readConfig } from '../../src/config/config.js';
import { NotFoundError } from '../../src/errors.js';
import { freePort, launchRedis } from '../../src/cli/demo/redis-server.js';
import type { Generation } from '../../src/generation/record.js';
import { isTerminal, STATES } from '../../src/generation/states.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { billsPerGeneration, startSimulator } from '../../src/simulator/simulator.js';
import type { Reelhaul } from '../../src/reelhaul.js';
import { fileDigest } from '../support/digest.js';
import { CHAOS_RATES } from './faults.js';
import { startFleet } from './fleet.js';

const POINTS = ['before-send', 'sent', 'answered', 'saved', 'handed-over'];
const image = 'https://example.com/still.png';

const { values: flags } = parseArgs({
  options: {
    generations: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    workers: { type: 'string', default: '3' },
    kills: { type: 'string', default: '60' },
    'redis-restarts': { type: 'string', default: '3' },
    /** Only this point, or `each`, and no kills from outside. */
    point: { type: 'string' },
    /** Each point is struck once before anything else; then kills from outside as well. */
    'points-first': { type: 'boolean', default: false },
    /** MAX_IN_FLIGHT, and BUDGET_PER_DAY with every generation at a price of 1; over it they fail. Default: none. */
    'max-in-flight': { type: 'string' },
    budget: { type: 'string' },
    'time-limit-s': { type: 'string', default: '540' },
    verbose: { type: 'boolean', default: false },
  },
});
const wanted = {
  generations: Number(flags.generations),
  kills: Number(flags.kills),
  restarts: Number(flags['redis-restarts']),
  seed: Number(flags.seed),
};
if (flags.point !== undefined && ![...POINTS, 'each'].includes(flags.point)) {
  process.stderr.write(`expected --point to be each or one of ${POINTS.join(', ')}, got ${flags.point}\n`);
  process.exit(2);
}

/** A small generator of its own (mulberry32): the order of kills follows the seed, their effect follows the machine. */
function createDice(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const dice = createDice(wanted.seed);
const startedAt = Date.now();
const giveUpAt = startedAt + Number(flags['time-limit-s']) * 1000;
const redis = await launchRedis(['--appendfsync', 'everysec']);
if (redis.kind !== 'server') {
  await redis.stop();
  process.stderr.write(
    'The chaos run kills and restarts Redis; it needs a real redis-server or valkey-server on PATH.\n',
  );
  process.exit(2);
}
const simulator = await startSimulator({
  seed: wanted.seed,
  taskDurationMs: 1500,
  rates: CHAOS_RATES,
  apiKey: 'chaos-key-0123456789',
});
const archive = await mkdtemp(join(tmpdir(), 'reelhaul-chaos-'));
const port = await freePort();
const environment: Record<string, string> = {
  COMETAPI_KEY: 'chaos-key-0123456789',
  COMETAPI_BASE_URL: simulator.url,
  REDIS_URL: redis.url,
  REDIS_PREFIX: '{chaos}',
  STORAGE_URL: `file:${archive}`,
  ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost',
  INPUT_URL_CHECK: 'false',
  PUBLIC_URL: `http://127.0.0.1:${port}`,
  PORT: String(port),
  CALLBACK_SECRET: 'a secret of the chaos run',
  LOG_LEVEL: flags.verbose ? 'info' : 'silent',
  SUBMIT_TIMEOUT_MS: '8000',
  SUBMIT_CONCURRENCY: '5',
  POLL_TIMEOUT_MS: '5000',
  POLL_FIRST_DELAY_MS: '200',
  POLL_MIN_INTERVAL_MS: '300',
  POLL_MAX_INTERVAL_MS: '2000',
  ARCHIVE_BACKOFF_MS: '100',
  UNCONFIRMED_WAIT_MS: '6000',
  JOB_LOCK_MS: '2000',
  SWEEP_INTERVAL_MS: '2000',
  SHUTDOWN_TIMEOUT_MS: '10000',
  PRICES: '{"*":1}',
  OVER_BUDGET: 'fail',
  ...(flags.budget === undefined ? {} : { BUDGET_PER_DAY: flags.budget }),
  // What is doubtful holds its slot as long as a task may live: no longer than a run can wait for.
  ...(flags['max-in-flight'] === undefined
    ? {}
    : {
        MAX_IN_FLIGHT: flags['max-in-flight'],
        GENERATION_DEADLINE_MS: '20000',
        LATE_CHECK_INTERVAL_MS: '2000',
        LATE_CHECK_FOR_MS: '20000',
      }),
};

let finished = false;
const points = flags.point === undefined || flags.point === 'each' ? POINTS : [flags.point];
const strikeFirst = flags.point !== undefined || flags['points-first'] ? points : [];
const fleet = startFleet({
  workers: Math.max(Number(flags.workers), strikeFirst.length),
  environment,
  points,
  // Named points only: about one in three submits is struck until the kills are done.
  probability: flags.point === undefined ? 0.03 : 0.3,
  strikeFirst,
  onKill: (kills) => {
    if (kills >= wanted.kills) fleet.calmDown();
  },
  write: (text) => void process.stderr.write(text),
});

// Stopped from outside: leave nothing running behind.
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    finished = true;
    void Promise.all([fleet.stop(), redis.stop()]).finally(() => process.exit(130));
  });
}

/** Redis may be down at any moment: what a producer would do is try again, and the idempotency key makes that safe. */
async function insist<T>(work: (reelhaul: Reelhaul) => Promise<T>): Promise<T> {
  for (;;) {
    try {
      const reelhaul = await createReelhaul({ config: readConfig(environment) });
      try {
        return await work(reelhaul);
      } finally {
        await reelhaul.close().catch(() => {});
      }
    } catch (error) {
      if (Date.now() > giveUpAt) throw error;
      await wait(100);
    }
  }
}

const ids = new Map<number, string>();
async function enqueueAll(): Promise<void> {
  while (ids.size < wanted.generations) {
    await insist(async (reelhaul) => {
      for (let i = ids.size; i < wanted.generations; i++) {
        const { id } = await reelhaul.enqueue(
          { prompt: `chaos ${wanted.seed}/${i}`, image },
          { idempotencyKey: `chaos-${i}` },
        );
        ids.set(i, id);
        // Spread over the run, so that kills and restarts meet every stage; the second half leaves something for each that
        // is to strike first.
        const later = i >= wanted.generations / 2 && fleet.struck.size < strikeFirst.length;
        await wait(dice() * (later ? 1500 : 40));
      }
    });
  }
}

let restarts = 0;
async function makeTrouble(): Promise<void> {
  const everyMs = flags.point === undefined ? (wanted.generations * 25) / Math.max(1, wanted.kills) + 200 : 0;
  while (!finished) {
    const total = fleet.kills.outside + fleet.kills.atPoints;
    if (flags.point === undefined && total < wanted.kills) {
      fleet.killOne(dice());
      await wait(everyMs * (0.5 + dice()));
    } else await wait(200);
    const due = ((restarts + 1) * wanted.kills) / (wanted.restarts + 1);
    if (restarts < wanted.restarts && fleet.kills.outside + fleet.kills.atPoints >= due) {
      await redis.kill();
      await wait(500 * dice());
      await redis.start();
      restarts += 1;
    }
  }
}

/** Over, or in the inbox with nothing due: only a person can move it. */
async function isSettled(generation: Generation, live: ReadonlySet<string>): Promise<boolean> {
  return isTerminal(generation.state) || (generation.state === 'unconfirmed' && !live.has(generation.id));
}

async function settledGenerations(): Promise<Generation[]> {
  for (;;) {
    const look = await insist(async (reelhaul) => {
      const generations = await Promise.all(
        [...ids.values()].map((id) =>
          reelhaul.get(id).catch((error: unknown) => {
            // A Redis that is away has lost nothing: look again.
            if (error instanceof NotFoundError) return null;
            throw error;
          }),
        ),
      );
      return generations.filter((generation) => generation !== null);
    });
    const { Redis } = await import('ioredis');
    const client = new Redis(redis.port, '127.0.0.1');
    client.on('error', () => {});
    const live = new Set(await client.zrange('{chaos}:live', '0', '-1'));
    client.disconnect();
    const settled = await Promise.all(look.map((generation) => isSettled(generation, live)));
    const trouble = fleet.kills.outside + fleet.kills.atPoints < wanted.kills || restarts < wanted.restarts;
    if (settled.every(Boolean) && (!trouble || flags.point !== undefined)) return look;
    if (Date.now() > giveUpAt) return look;
    await wait(1000);
  }
}

const trouble = makeTrouble();
await enqueueAll();
const generations = await settledGenerations();
finished = true;
await trouble;
const spend = await insist((reelhaul) => reelhaul.spend());
await fleet.stop();

const ledger = simulator.ledger();
const bills = [...billsPerGeneration(ledger).values()];
const maxTasks = Math.max(0, ...bills.map(({ tasks }) => tasks));
const tasksById = new Map(ledger.tasks.map((task) => [task.taskId, task]));
const byState = new Map<string, number>();
for (const { state } of generations) byState.set(state, (byState.get(state) ?? 0) + 1);

let verified = 0;
const wrongFiles: string[] = [];
for (const { id, assets, taskId } of generations) {
  if (!assets) continue;
  const expected = tasksById.get(taskId ?? '')?.assets.video.sha256;
  const stored = await fileDigest(join(archive, assets.video.key)).catch(() => 'missing');
  if (stored === assets.video.sha256 && stored === expected) verified += 1;
  else wrongFiles.push(id);
}
const open = generations.filter(({ state }) => !isTerminal(state) && state !== 'unconfirmed');
const unconfirmed = generations.filter(({ state }) => state === 'unconfirmed');
const lost = ids.size - generations.length;
const withTask = unconfirmed.filter(({ id }) => ledger.tasks.some((task) => task.generationId === id)).length;
const { bills: billed, maxTasksInFlight } = ledger.totals;
// What is possible may or may not have been billed; all else is known.
const booksAgree = spend.charged <= billed && billed <= spend.charged + spend.possible;
const capKept = maxTasksInFlight <= Number(flags['max-in-flight'] ?? Infinity);
const budgetKept = spend.charged + spend.possible <= Number(flags.budget ?? Infinity);
const failures = new Map<string, number>();
for (const { failure } of generations)
  if (failure) failures.set(failure.code, (failures.get(failure.code) ?? 0) + 1);

const rows: [string, string | number][] = [
  ['generations', ids.size],
  ...STATES.filter((state) => byState.has(state)).map((state): [string, number] => [
    `  ${state}`,
    byState.get(state)!,
  ]),
  ['failure codes', [...failures].map(([code, n]) => `${code} ${n}`).join(', ') || 'none'],
  [
    'kills of workers',
    `${fleet.kills.outside} from outside, ${fleet.kills.atPoints} at ${points.join(', ')}`,
  ],
  ...(strikeFirst.length === 0 ? [] : [['points struck', [...fleet.struck].join(', ')] as [string, string]]),
  ['restarts of Redis', restarts],
  ['submits received', ledger.totals.submits],
  ['provider tasks created', ledger.totals.tasksCreated],
  ['tasks per generation (max)', maxTasks],
  ['bills in the books', billed],
  [
    'spend',
    `${spend.charged} charged, ${spend.possible} possible${flags.budget ? ` of ${flags.budget}` : ''}`,
  ],
  [
    'tasks at once (max)',
    `${maxTasksInFlight}${flags['max-in-flight'] ? ` of ${flags['max-in-flight']}` : ''}`,
  ],
  ['lost', lost],
  ['neither over nor in the inbox', open.length],
  ['videos verified byte for byte', `${verified} of ${byState.get('succeeded') ?? 0}`],
  [
    'unconfirmed (the inbox)',
    `${unconfirmed.length}: ${withTask} with a task whose callback was lost, ${unconfirmed.length - withTask} without one`,
  ],
  ['API key sent elsewhere', ledger.totals.leakedKeys],
  ['seconds', ((Date.now() - startedAt) / 1000).toFixed(0)],
];
const width = Math.max(...rows.map(([label]) => label.length));
process.stdout.write(`${rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`).join('\n')}\n`);
for (const id of wrongFiles) process.stdout.write(`differs from the provider's bytes: ${id}\n`);
for (const { id, state } of open) process.stdout.write(`stuck in ${state}: ${id}\n`);

await simulator.close();
await redis.stop();
await rm(archive, { recursive: true, force: true });
const good =
  maxTasks <= 1 &&
  lost === 0 &&
  open.length === 0 &&
  wrongFiles.length === 0 &&
  booksAgree &&
  capKept &&
  budgetKept &&
  ledger.totals.leakedKeys === 0;
process.stdout.write(good ? 'kept: one bill each, nothing lost\n' : 'BROKEN: see above\n');
process.exit(good ? 0 : 1);
