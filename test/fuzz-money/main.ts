/**
 * `npm run fuzz:money -- --generations 1000 --seed 7`: everything that apps, operators, the provider and the machine can do to
 * a generation, at random: cancel, retry, decide, callbacks of every kind, doubled tasks, caps and prices, workers killed and
 * frozen, Redis killed. Once nothing is under way, records, indexes, spend and slots are compared with the provider's
 * books, then everything is pruned and nothing may be left. Exits non-zero with one line for each finding.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { freePort, launchRedis } from '../../src/cli/demo/redis-server.js';
import { readConfig } from '../../src/config/config.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { startSimulator } from '../../src/simulator/simulator.js';
import { CHAOS_RATES } from '../chaos/faults.js';
import { startFleet } from '../chaos/fleet.js';
import { createDice } from '../fuzz/dice.js';
import { createActions, type Order } from './actions.js';
import { audit, charges, leftovers } from './audit.js';

const { values: flags } = parseArgs({
  options: {
    generations: { type: 'string', default: '1000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    workers: { type: 'string', default: '3' },
    kills: { type: 'string', default: '60' },
    freezes: { type: 'string', default: '30' },
    'redis-kills': { type: 'string', default: '4' },
    'time-limit-s': { type: 'string', default: '540' },
    verbose: { type: 'boolean', default: false },
  },
});
const seed = Number(flags.seed);
const print = (text: string) => void process.stdout.write(`${text}\n`);
print(`seed ${seed}`);

const dice = createDice(seed);
const startedAt = Date.now();
const giveUpAt = startedAt + Number(flags['time-limit-s']) * 1000;
const redis = await launchRedis(['--appendfsync', 'always']);
if (redis.kind !== 'server') {
  await redis.stop();
  process.stderr.write('The money run kills Redis; it needs a real redis-server or valkey-server on PATH.\n');
  process.exit(2);
}
const simulator = await startSimulator({
  seed,
  taskDurationMs: 1000,
  rates: {
    ...CHAOS_RATES,
    // What is decided and what comes back while a POST is under way.
    'slow-submit': 0.3,
    'callback-early': 0.25,
    'submit-reset-after': 0.08,
    'submit-502-after': 0.06,
    'submit-429': 0.05,
    'submit-double': 0.04,
    // It holds all polls for longer each time: rare enough that a run ends.
    'poll-429': 0.002,
  },
  apiKey: 'fuzz-key-0123456789',
});
const archive = await mkdtemp(join(tmpdir(), 'reelhaul-fuzz-'));
const port = await freePort();
const prefix = '{fuzz}';
const secret = 'a secret of the money run';
/** The longest that a doubtful POST holds its slot. */
const LIVES_MS = 12_000;
const environment: Record<string, string> = {
  COMETAPI_KEY: 'fuzz-key-0123456789',
  COMETAPI_BASE_URL: simulator.url,
  REDIS_URL: redis.url,
  REDIS_PREFIX: prefix,
  STORAGE_URL: `file:${archive}`,
  ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost',
  PUBLIC_URL: `http://127.0.0.1:${port}`,
  PORT: String(port),
  CALLBACK_SECRET: secret,
  LOG_LEVEL: flags.verbose ? 'info' : 'silent',
  SUBMIT_TIMEOUT_MS: '4000',
  SUBMIT_CONCURRENCY: '8',
  SUBMIT_BACKOFF_MS: '50',
  POLL_TIMEOUT_MS: '3000',
  POLL_FIRST_DELAY_MS: '200',
  POLL_MIN_INTERVAL_MS: '200',
  POLL_MAX_INTERVAL_MS: '1000',
  NOT_VISIBLE_GRACE_MS: '4000',
  NO_URL_GRACE_MS: '3000',
  ARCHIVE_BACKOFF_MS: '50',
  UNCONFIRMED_WAIT_MS: '4000',
  JOB_LOCK_MS: '1500',
  SWEEP_INTERVAL_MS: '1000',
  SHUTDOWN_TIMEOUT_MS: '5000',
  REFUSED_PROBE_MS: '300',
  GENERATION_DEADLINE_MS: String(LIVES_MS),
  LATE_CHECK_INTERVAL_MS: '500',
  LATE_CHECK_FOR_MS: '4000',
  MAX_IN_FLIGHT: '60',
  MAX_IN_FLIGHT_PER_TENANT: '25',
  PRICES: '{"*":{"5":1,"10":2}}',
  TENANTS: '{"poor":{"budgetPerDay":60}}',
  OVER_BUDGET: 'fail',
  INPUT_URL_CHECK: 'false',
  IDEMPOTENCY_TTL_MS: '2000',
};
const reelhaul = await createReelhaul({ config: readConfig(environment) });
const client = new Redis(redis.url);
client.on('error', () => {});
const fleet = startFleet({
  workers: Number(flags.workers),
  environment,
  points: ['before-send', 'sent', 'answered', 'saved', 'handed-over'],
  probability: 0.02,
  onKill: (count) => {
    if (count >= Number(flags.kills)) fleet.calmDown();
  },
  write: (text) => void process.stderr.write(text),
});
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void Promise.all([fleet.stop(), redis.stop()]).finally(() => process.exit(130)));

const total = Number(flags.generations);
const orders = new Map<number, Order>();
const actions = createActions({
  reelhaul,
  simulator,
  dice,
  orders,
  publicUrl: `http://127.0.0.1:${port}`,
  secret,
});

async function enqueueAll(): Promise<void> {
  while (orders.size < total && Date.now() < giveUpAt) {
    const i = orders.size;
    const tenant = dice.pick(['a', 'b', 'poor']);
    const policy = dice.pick([undefined, 'hold', 'resubmit', 'fail'] as const);
    const seconds = dice.pick([5, 10] as const);
    const request = {
      prompt: `fuzz ${seed}/${i}`,
      image: 'https://example.com/still.png',
      options: { seconds },
    };
    const options = { tenant, idempotencyKey: `fuzz-${i}`, ...(policy ? { onUnconfirmed: policy } : {}) };
    try {
      const { id } = await reelhaul.enqueue(request, options);
      orders.set(i, { id, tenant, allowed: policy === 'resubmit' ? 1 : 0, forged: [] });
    } catch {
      // Redis is away: the key makes it safe to try again, with the same order.
      await wait(100);
      for (;;) {
        try {
          const { id } = await reelhaul.enqueue(request, options);
          orders.set(i, { id, tenant, allowed: policy === 'resubmit' ? 1 : 0, forged: [] });
          break;
        } catch (error) {
          if (Date.now() > giveUpAt) throw error;
          await wait(100);
        }
      }
    }
    await wait(dice.whole(0, 60));
  }
}

const states = () => reelhaul.count(['queued', 'submitting', 'unconfirmed', 'generating', 'archiving']);

/** Goes on until all is enqueued and nothing waits for its submit; kills and freezes are spread over that. */
async function makeTrouble(): Promise<void> {
  const did = { freezes: 0, kills: 0, redisKills: 0 };
  let share = 0;
  for (let round = 0; share < 1 && Date.now() < giveUpAt - 60_000; round++) {
    await actions.act();
    if (round % 20 === 0) {
      const { queued = total } = (await states().catch(() => null)) ?? {};
      share = Math.max(share, Math.min(1, (orders.size - queued) / total));
    }
    if (did.kills < share * Number(flags.kills)) {
      did.kills += 1;
      fleet.killOne(dice.next());
    }
    if (did.freezes < share * Number(flags.freezes)) {
      did.freezes += 1;
      fleet.freezeOne(dice.next(), dice.whole(200, 6000));
    }
    if (did.redisKills < share * Number(flags['redis-kills']) - 0.5) {
      did.redisKills += 1;
      await redis.kill();
      await wait(dice.whole(0, 500));
      await redis.start();
    }
    await wait(dice.whole(0, 30));
  }
}

/** Nothing is due, and no call is out: no job, and only unconfirmed ones that are held. */
async function settle(): Promise<boolean> {
  for (let calm = 0; Date.now() < giveUpAt;) {
    const counts = await states().catch(() => null);
    const live = await client.zcard(`${prefix}:live`).catch(() => -1);
    const { unconfirmed: _held, ...others } = counts ?? { queued: 1 };
    const out = simulator.ledger().submits.some(({ answeredAt }) => answeredAt === null);
    const isCalm = live === 0 && !out && Object.values(others).every((count) => count === 0);
    calm = isCalm ? calm + 1 : 0;
    if (calm >= 8) return true;
    await wait(250);
  }
  return false;
}

const trouble = makeTrouble();
await enqueueAll();
await trouble;
fleet.thaw();
fleet.calmDown();
const problems: string[] = [];
if (!(await settle())) problems.push(`not settled: ${JSON.stringify(await states())}`);
const look = () => audit(client, prefix, { orders: [...orders.values()], ledger: simulator.ledger() });
// What is found only once was under way.
if ((await look()).length > 0) {
  await wait(5000);
  problems.push(...(await look()));
}
const billed = simulator.ledger().totals;
const kinds = await charges(client, prefix);
const byState = await reelhaul.count(['succeeded', 'failed', 'expired', 'canceled', 'unconfirmed']);
await fleet.stop();
if (billed.tasksCreated < orders.size / 20)
  problems.push(`only ${billed.tasksCreated} tasks: nothing was tried`);

/** Everything is over, and its retention as well: a last worker forgets it all. */
async function forget(): Promise<string[]> {
  for (const { id } of orders.values()) await reelhaul.decide(id, { giveUp: true }).catch(() => {});
  const last = startFleet({
    workers: 1,
    environment: { ...environment, RETENTION_MS: '2000' },
    points: [],
    probability: 0,
    onKill: () => {},
    write: (text) => void process.stderr.write(text),
  });
  let left: string[] = [];
  do {
    await wait(500);
    left = await leftovers(client, prefix);
  } while (left.length > 0 && Date.now() < giveUpAt);
  await last.stop();
  return left.map((key) => `${key} is left after everything was forgotten`);
}
if (problems.length === 0) problems.push(...(await forget()));

print(`${orders.size} generations: ${JSON.stringify(byState)}`);
print(`actions: ${[...actions.done].map(([name, count]) => `${name} ${count}`).join(', ')}`);
print(
  `${fleet.kills.outside} kills from outside, ${fleet.kills.atPoints} at named points, ${fleet.kills.frozen} freezes`,
);
print(`submits ${billed.submits}, tasks ${billed.tasksCreated}, bills ${billed.bills}`);
print(`charges: ${JSON.stringify(Object.fromEntries(kinds))}`);
print(`${((Date.now() - startedAt) / 1000).toFixed(0)} s`);
for (const problem of problems) print(problem);
await reelhaul.close();
client.disconnect();
await simulator.close();
await redis.stop();
await rm(archive, { recursive: true, force: true });
print(
  problems.length === 0
    ? 'kept: bills, slots and indexes agree with the books'
    : `BROKEN: ${problems.length} findings`,
);
process.exit(problems.length === 0 ? 0 : 1);
