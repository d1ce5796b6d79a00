/**
 * `REDIS_SHARDS` on one server: nothing of it needs a Cluster. Whatever is decided about a generation reaches its shard,
 * what is known of key and provider is told as one, and two numbers of shards never meet under one prefix.
 */
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { shardOf } from '../../src/generation/shard.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { callbackUrl } from '../../src/provider/callback.js';
import { startApi, type TestApi } from '../support/api.js';
import { ACCOUNTS, OPERATOR, visit } from '../support/dashboard.js';
import { cliFile, createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const SHARDS = 3;
const EACH = [0, 1, 2];
const CALLBACK_SECRET = 'a secret for the tests';
/** Far longer than a test: who waits for the next probe waits in vain. */
const NEVER_AGAIN = '3600000';

const cleanUps: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

async function setUp(environment: Record<string, string> = {}): Promise<Testbed> {
  const bed = await createTestbed({ environment: { REDIS_SHARDS: String(SHARDS), ...environment } });
  cleanUps.push(() => bed.close());
  return bed;
}

function hubOf(bed: Testbed): Hub {
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  cleanUps.push(() => hub.queues.close());
  return hub;
}

async function serve(bed: Testbed, environment: Record<string, string> = {}): Promise<TestApi> {
  const api = await startApi(bed, environment);
  cleanUps.push(() => api.close());
  return api;
}

/** One generation in each shard: keys decide where they lie. */
async function enqueueInEach(bed: Testbed, prompt: string): Promise<string[]> {
  const ids = new Map<number, string>();
  for (let i = 0; ids.size < SHARDS; i++) {
    const { id } = await bed.enqueue(`${prompt} ${i}`, { idempotencyKey: `${prompt} ${i}` });
    const shard = shardOf(id, SHARDS);
    if (ids.has(shard)) await bed.reelhaul.cancel(id);
    else ids.set(shard, id);
  }
  return EACH.map((shard) => ids.get(shard)!);
}

describe('in each shard', () => {
  test('operators decide: cancel, adopt, give up, resubmit and retry', async () => {
    const bed = await setUp({ UNCONFIRMED_WAIT_MS: '0', PUBLIC_URL: 'http://127.0.0.1:1', CALLBACK_SECRET });
    const canceled = await enqueueInEach(bed, 'not wanted');
    for (const id of canceled) expect((await bed.reelhaul.cancel(id)).generation.state).toBe('canceled');
    await bed.work();
    const unclear = '[sim: submit=502-after, callback=lost]';
    const [adopted, givenUp, again] = await Promise.all(
      ['adopted', 'given up', 'again'].map((name) => enqueueInEach(bed, `${unclear} ${name}`)),
    );
    for (const id of [...adopted!, ...givenUp!, ...again!]) await bed.reaches(id, 'unconfirmed');
    const taskOf = (id: string) =>
      bed.simulator.ledger().tasks.find(({ generationId }) => generationId === id)!.taskId;
    for (const id of adopted!) {
      await bed.reelhaul.decide(id, { adopt: taskOf(id) });
      expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', taskId: taskOf(id) });
    }
    for (const id of givenUp!) {
      expect((await bed.reelhaul.decide(id, { giveUp: true })).state).toBe('failed');
      await expect(bed.reelhaul.retry(id)).rejects.toThrow('billed');
    }
    for (const id of again!) {
      await bed.reelhaul.decide(id, { resubmit: true });
      await until(
        async () => (await bed.reelhaul.get(id)).attempts.submit === 2,
        'the second submit that was accepted',
      );
    }
  });

  test('a callback brings the task id of a lost answer', async () => {
    const bed = await setUp({ PUBLIC_URL: 'http://127.0.0.1:1', CALLBACK_SECRET });
    const api = await serve(bed);
    await bed.work();
    const ids = await enqueueInEach(bed, '[sim: submit=502-after, callback=lost] lost');
    for (const id of ids) await bed.reaches(id, 'unconfirmed');
    for (const { taskId, generationId } of bed.simulator.ledger().tasks) {
      if (!ids.includes(generationId!)) continue;
      const url = callbackUrl(
        { publicUrl: api.url, placeholderUrl: 'https://example.com', secret: CALLBACK_SECRET },
        generationId!,
      );
      const answer = await fetch(url, { method: 'POST', body: JSON.stringify({ task_id: taskId }) });
      expect(answer.status).toBe(204);
    }
    for (const id of ids) expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  });

  test('what has been finished for long is forgotten', async () => {
    const bed = await setUp({ RETENTION_MS: '1000', IDEMPOTENCY_TTL_MS: '1000' });
    await bed.work();
    const ids = await enqueueInEach(bed, 'once');
    for (const id of ids) await bed.reelhaul.waitFor(id);
    await until(async () => (await bed.reelhaul.list()).generations.length === 0, 'all to be forgotten');
    for (const id of ids) await expect(bed.reelhaul.get(id)).rejects.toThrow(id);
  });

  test('the queues stand in the dashboard under names of their own', async () => {
    const bed = await setUp();
    const api = await serve(bed, ACCOUNTS);
    const hub = hubOf(bed);
    await hub.shards[1]!.queues.remind('poll', { generationId: 'g', delayMs: 3_600_000 });
    const { get } = await visit(api, OPERATOR);
    const path = (queue: string) =>
      `/dashboard/queues/api/queues?activeQueue=${encodeURIComponent(queue)}&status=delayed&page=1`;
    const { queues } = (await get(path('shard-1 poll'))).body as {
      queues: { name: string; counts: { delayed: number }; jobs: unknown[] }[];
    };
    const polls = queues.filter(({ name }) => name.endsWith(' poll'));
    expect(polls.map(({ name, counts }) => [name, counts.delayed])).toEqual([
      ['shard-0 poll', 0],
      ['shard-1 poll', 1],
      ['shard-2 poll', 0],
    ]);
    expect(polls[1]!.jobs).toHaveLength(1);
  });
});

describe('as one', () => {
  test('a refused key and a provider that is away in one shard are told, and an operator ends them in all', async () => {
    const bed = await setUp({
      ...{ REFUSED_PROBE_MS: NEVER_AGAIN, BREAKER_PROBE_MS: NEVER_AGAIN, BREAKER_FAILURES: '1' },
    });
    const hub = hubOf(bed);
    await hub.shards[1]!.standing.refused();
    await hub.shards[2]!.breaker.failed('submit');
    expect(await bed.reelhaul.limits()).toMatchObject({
      refused: true,
      breaker: { submit: { openAt: expect.any(Number) } },
    });
    const ids = await enqueueInEach(bed, 'waits');
    await bed.work();
    // The shard that knows nothing of either works on.
    expect((await bed.reelhaul.waitFor(ids[0]!)).state).toBe('succeeded');
    await bed.reelhaul.resume();
    for (const id of ids) expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(await bed.reelhaul.limits()).toMatchObject({
      refused: false,
      breaker: { submit: { openAt: null } },
    });
  });

  test('limits that are written over all are shared out, and read back as they were', async () => {
    const { line, shards } = hubOf(await setUp());
    const limits = {
      ...{ maxInFlight: 10, tenantMaxInFlight: 4, rateMax: 50, rateWindowMs: 1000 },
      ...{ budgetPerDay: 100, tenantBudgetPerDay: null },
      tenants: { acme: { weight: 2, maxInFlight: 5, budgetPerDay: 7.5 }, other: { weight: 3 } },
    };
    await line.publish(limits);
    expect(await line.inForce()).toEqual(limits);
    const parts = await Promise.all(shards.map((shard) => shard.line.inForce()));
    expect(parts.map((part) => part?.maxInFlight)).toEqual([4, 3, 3]);
    expect(parts.map((part) => part?.tenants['acme']?.maxInFlight)).toEqual([2, 2, 1]);
    expect(parts.map((part) => part?.budgetPerDay)).toEqual([33.333333, 33.333333, 33.333333]);
  });

  test('a budget of millionths is told as it was set', async () => {
    const budget = {
      BUDGET_PER_DAY: '10.0001',
      PRICES: '{"*":0.001}',
      TENANTS: '{"a":{"budgetPerDay":0.1}}',
    };
    const bed = await setUp(budget);
    await bed.work();
    expect(await bed.reelhaul.spend()).toMatchObject({ budget: 10.0001 });
    expect(await bed.reelhaul.spend({ tenant: 'a' })).toMatchObject({ budget: 0.1 });
  });
});

test('as many shards as there may be are followed and worked on without a warning', async () => {
  const bed = await setUp({ REDIS_SHARDS: '16' });
  const worker = bed.spawnWorker();
  const watch = bed.spawnWorker({}, [cliFile, 'watch', '--cursor', '0-0', '--json']);
  const { id } = await bed.enqueue('one of many places');
  await until(() => watch.output().includes('"to":"succeeded"'), 'the end to be told');
  expect((await bed.reelhaul.get(id)).state).toBe('succeeded');
  for (const program of [worker, watch]) {
    program.child.kill('SIGTERM');
    expect(await program.exited).toBe(0);
    expect(program.output()).not.toContain('Warning');
  }
});

describe('two numbers of shards under one prefix', () => {
  /** An environment in which nothing was ever started. */
  async function freshEnvironment() {
    const bed = await createTestbed();
    cleanUps.push(() => bed.close());
    const REDIS_PREFIX = `${bed.prefix.slice(0, -1)}-fresh}`;
    return (shards: number) => readConfig({ ...bed.environment, REDIS_PREFIX, REDIS_SHARDS: String(shards) });
  }
  async function start(config: ReturnType<typeof readConfig>): Promise<number> {
    const reelhaul = await createReelhaul({ config });
    cleanUps.push(() => reelhaul.close());
    return config.REDIS_SHARDS;
  }

  test('never meet: of processes that start together only those with one number do', async () => {
    const configOf = await freshEnvironment();
    const numbers = [1, 2, 4, 1, 2, 4, 1, 2, 4];
    const started = await Promise.allSettled(numbers.map((shards) => start(configOf(shards))));
    const ran = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(new Set(ran).size).toBe(1);
    expect(ran).toHaveLength(3);
  });

  test('never meet: who runs with one shard and has stored nothing yet keeps all others out', async () => {
    const configOf = await freshEnvironment();
    await start(configOf(1));
    await expect(start(configOf(2))).rejects.toThrow('Expected REDIS_SHARDS=1');
  });

  test('never meet: what a release left that wrote no number is of one shard', async () => {
    const bed = await createTestbed();
    cleanUps.push(() => bed.close());
    await bed.enqueue('from before shards');
    await bed.redis.del(`${bed.prefix}:shards`);
    const config = readConfig({ ...bed.environment, REDIS_SHARDS: '2' });
    await expect(start(config)).rejects.toThrow('Expected REDIS_SHARDS=1');
    expect(await start(bed.config)).toBe(1);
  });

  test('are told by the doctor, which writes nothing', async () => {
    const bed = await setUp();
    const look = async (environment: Record<string, string>) => {
      const doctor = bed.spawnWorker(environment, [cliFile, 'doctor']);
      await doctor.exited;
      return doctor.output();
    };
    expect(await look({})).toMatch(/ok +shards: generations are spread over 3/);
    expect(await look({ REDIS_SHARDS: '2' })).toMatch(/error +shards: Expected REDIS_SHARDS=3/);
    const fresh = `${bed.prefix.slice(0, -1)}-fresh}`;
    await look({ REDIS_PREFIX: fresh, REDIS_SHARDS: '2' });
    expect(await bed.redis.exists(`${fresh}:shards`)).toBe(0);
  });
});

describe('a cap or a budget that cannot be shared out is refused', () => {
  const read = (environment: Record<string, string>) => () =>
    readConfig({ REDIS_SHARDS: '4', ...environment });

  test('one of which a shard would have nothing', () => {
    expect(read({ MAX_IN_FLIGHT: '3' })).toThrow(
      /MAX_IN_FLIGHT: expected at least REDIS_SHARDS \(4\), which share it, got 3/,
    );
    expect(read({ TENANTS: '{"acme":{"maxInFlight":2}}' })).toThrow(
      /TENANTS.acme.maxInFlight: expected at least/,
    );
    expect(read({ MAX_IN_FLIGHT: '4' })).not.toThrow();
  });

  test('one whose part would never pay for a generation that the whole could pay for', () => {
    const PRICES = '{"gen4":{"5":0.5,"10":1},"*":0.25}';
    expect(read({ PRICES, BUDGET_PER_DAY: '3.9' })).toThrow(
      /BUDGET_PER_DAY: expected at least REDIS_SHARDS \(4\), which share it, times 1, a price in PRICES; got 3.9/,
    );
    expect(read({ PRICES, TENANTS: '{"acme":{"budgetPerDay":0.99}}' })).toThrow(
      /TENANTS.acme.budgetPerDay: .* times 0.5/,
    );
    expect(read({ PRICES, BUDGET_PER_DAY: '4', BUDGET_PER_TENANT_PER_DAY: '0' })).not.toThrow();
    expect(read({ PRICES, BUDGET_PER_DAY: '3.9', REDIS_SHARDS: '1' })).not.toThrow();
  });
});
