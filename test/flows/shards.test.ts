/**
 * `REDIS_SHARDS`: generations spread over several hash tags on a Redis Cluster of real processes. From every door they are
 * one whole: found, listed, waited for, told of, canceled, swept; and caps hold over all of them together.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import type { GenerationEvent } from '../../src/store/event-stream.js';
import { shardOf, shardPrefix } from '../../src/generation/shard.js';
import { createHub } from '../../src/pipeline/context.js';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { billsPerGeneration } from '../../src/simulator/simulator.js';
import { connectRedis, type RedisConnection } from '../../src/redis/connect.js';
import { launchCluster, type TestCluster } from '../support/cluster.js';
import { SECRET, startReceiver } from '../support/receiver.js';
import { cliFile, createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

/** Four runners per stage and process, three servers: it takes its time on a busy machine. */
const SHARDS = 4;
const log = pino({ level: 'silent' });

const cleanUps: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

(realRedis ? describe : describe.skip)('four shards on a Redis Cluster', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await launchCluster();
  });
  afterAll(() => cluster.stop());

  async function setUp(environment: Record<string, string> = {}): Promise<Testbed> {
    const bed = await createTestbed({
      cluster: cluster.nodes,
      environment: { REDIS_SHARDS: String(SHARDS), ...environment },
    });
    cleanUps.push(() => bed.close());
    return bed;
  }
  async function connect(bed: Testbed): Promise<RedisConnection> {
    const redis = await connectRedis(bed.config, 'producer', log);
    cleanUps.push(() => redis.disconnect());
    return redis;
  }
  const shardsOf = (ids: readonly string[]) => new Set(ids.map((id) => shardOf(id, SHARDS)));

  test('are one whole at the library: each generation has one task, and all are found, listed and told of', async () => {
    const receiver = await startReceiver();
    cleanUps.push(() => receiver.close());
    const bed = await setUp({ NOTIFY_SECRET: SECRET, NOTIFY_ALLOW_HOSTS: '127.0.0.1' });
    const { reelhaul } = bed;
    const seen: GenerationEvent[] = [];
    const stop = new AbortController();
    const reading = (async () => {
      for await (const event of reelhaul.events({ cursor: '0-0', signal: stop.signal })) seen.push(event);
    })();
    const results = await reelhaul.enqueueMany(
      Array.from({ length: 24 }, (_, i) => ({
        request: { prompt: `reel ${i}`, image },
        ...(i % 2 === 0 ? { idempotencyKey: `key-${i}`, notifyUrl: receiver.url } : {}),
      })),
    );
    const ids = results.flatMap((result) => (result.ok ? [result.generation.id] : []));
    expect(ids).toHaveLength(24);
    expect(shardsOf(ids)).toEqual(new Set([0, 1, 2, 3]));
    // The same key finds the same generation, in whichever shard.
    for (let i = 0; i < 24; i += 2)
      expect((await bed.enqueue(`reel ${i}`, { idempotencyKey: `key-${i}` })).id).toBe(ids[i]);

    bed.spawnWorker();
    bed.spawnWorker();
    const ends = await Promise.all(ids.map((id) => reelhaul.waitFor(id)));
    expect(new Set(ends.map(({ state }) => state))).toEqual(new Set(['succeeded']));
    const bills = [...billsPerGeneration(bed.simulator.ledger()).values()];
    expect(bills.map(({ tasks }) => tasks)).toEqual(ids.map(() => 1));

    const listed: string[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await reelhaul.list({ limit: 7, ...(cursor === '' ? {} : { cursor }) });
      listed.push(...page.generations.map(({ id }) => id));
      ({ cursor } = page);
    }
    expect(listed).toEqual([...ids].sort().toReversed());
    expect(await reelhaul.count(['succeeded', 'queued'])).toEqual({ succeeded: 24, queued: 0 });
    await until(() => receiver.received.length >= 12, 'a notification of each that wants one');
    expect(new Set(receiver.received.map(({ body }) => body.data.id)).size).toBe(12);

    const succeeded = () => seen.filter(({ to }) => to === 'succeeded');
    await until(() => succeeded().length === 24, 'an event of each success');
    // Nothing more comes after these: what is read again is the same.
    const notified = () => seen.filter(({ type }) => type === 'notified');
    await until(() => notified().length === 12, 'an event of each notification');
    stop.abort();
    await reading;
    // A cursor goes on behind its event in every shard.
    const half = succeeded()[11]!;
    const rest: GenerationEvent[] = [];
    const over = new AbortController();
    const wanted = seen.length - seen.indexOf(half) - 1;
    for await (const event of reelhaul.events({ cursor: half.cursor, signal: over.signal })) {
      rest.push(event);
      if (rest.length === wanted) over.abort();
    }
    const named = (events: readonly GenerationEvent[]) =>
      events.map((e) => `${e.generationId} ${e.to} ${e.type}`);
    expect(named(rest).sort()).toEqual(named(seen.slice(-wanted)).sort());
    const [first] = ids;
    const own: (string | null)[] = [];
    const ended = new AbortController();
    for await (const event of reelhaul.events({
      cursor: '0-0',
      generationId: first!,
      signal: ended.signal,
    })) {
      if (event.to !== null) own.push(event.to);
      if (event.to === 'succeeded') ended.abort();
    }
    expect(own).toEqual(['queued', 'submitting', 'generating', 'archiving', 'succeeded']);
  });

  test('really share the masters: each has one, and one of them two', async () => {
    for (let i = 0; i < 10; i++) {
      const prefixes = Array.from({ length: SHARDS }, (_, shard) =>
        shardPrefix(`{${randomUUID()}}`, shard, SHARDS),
      );
      const ports = await Promise.all(prefixes.map(async (prefix) => (await cluster.ownerOf(prefix)).port));
      const shares = cluster.masters.map(({ port }) => ports.filter((one) => one === port).length);
      expect(shares.toSorted((a, b) => a - b)).toEqual([1, 1, 2]);
    }
  });

  test('keep a cap together, whichever worker does the work', async () => {
    const bed = await setUp({ MAX_IN_FLIGHT: '6', MAX_IN_FLIGHT_PER_TENANT: '5' });
    const results = await bed.reelhaul.enqueueMany(
      Array.from({ length: 30 }, (_, i) => ({
        request: { prompt: `reel ${i} [sim: duration=60ms]`, image },
      })),
    );
    await bed.work();
    await bed.work();
    for (const result of results)
      if (result.ok) expect((await bed.reelhaul.waitFor(result.generation.id)).state).toBe('succeeded');
    const { maxTasksInFlight, submits } = bed.simulator.ledger().totals;
    expect(maxTasksInFlight).toBeLessThanOrEqual(5);
    expect(maxTasksInFlight).toBeGreaterThan(1);
    expect(submits).toBe(30);
    expect(await bed.reelhaul.limits()).toMatchObject({
      ...{ inFlight: 0, inLine: 0, maxInFlight: 6, published: true },
      inForce: { maxInFlight: 6, tenantMaxInFlight: 5 },
    });
  });

  test('keep a budget together', async () => {
    const bed = await setUp({ BUDGET_PER_DAY: '8', PRICES: '{"*":1}', OVER_BUDGET: 'fail' });
    const results = await bed.reelhaul.enqueueMany(
      // So many that each shard surely has two, which is its part.
      Array.from({ length: 80 }, (_, i) => ({ request: { prompt: `reel ${i}`, image } })),
    );
    await bed.work();
    for (const result of results) if (result.ok) await bed.reelhaul.waitFor(result.generation.id);
    expect(bed.simulator.ledger().totals.submits).toBe(8);
    expect(await bed.reelhaul.spend()).toMatchObject({ charged: 8, budget: 8 });
  });

  test('are swept: a lost job of any of them is written again', async () => {
    const bed = await setUp();
    const redis = await connect(bed);
    const hub = createHub({ config: bed.config, log, redis });
    cleanUps.push(() => hub.queues.close());
    const results = await bed.reelhaul.enqueueMany(
      Array.from({ length: 24 }, (_, i) => ({ request: { prompt: `reel ${i} [sim: duration=1h]`, image } })),
    );
    const ids = results.flatMap((result) => (result.ok ? [result.generation.id] : []));
    const first = await bed.work();
    for (const id of ids) await bed.reaches(id, 'generating');
    await first.close();
    for (const id of ids) await hub.queues.forget('poll', id);
    expect(new Set(await hub.queues.missing('poll', ids))).toEqual(new Set(ids));
    await bed.work();
    await until(async () => (await hub.queues.missing('poll', ids)).length === 0, 'the sweeps of all shards');
  });

  test('answer at the other doors: HTTP, the dashboard and its search, metrics, the command line', async () => {
    const bed = await setUp();
    await bed.work();
    const results = await bed.reelhaul.enqueueMany(
      Array.from({ length: 12 }, (_, i) => ({
        request: { prompt: `reel ${i}`, image },
        idempotencyKey: `http-${i}`,
      })),
    );
    const ids = results.flatMap((result) => (result.ok ? [result.generation.id] : []));
    for (const id of ids) await bed.reaches(id, 'succeeded');
    const redis = await connect(bed);
    const hub = createHub({ config: bed.config, log, redis });
    cleanUps.push(() => hub.queues.close());
    for (const [i, id] of ids.entries()) {
      const record = await hub.store.get(id);
      expect(await hub.store.idOfTask(record!.taskId!)).toBe(id);
      expect(await hub.store.idOfKey('default', `http-${i}`)).toBe(id);
    }
    const port = await freePort();
    const environment = {
      PORT: String(port),
      DASHBOARD_USER: 'me',
      DASHBOARD_PASSWORD: 'a password for one test',
    };
    const server = bed.spawnWorker({ ...environment, LOG_LEVEL: 'info' }, [cliFile, 'serve']);
    await until(() => server.output().includes('server started'), 'the server');
    const ask = (path: string) => fetch(`http://127.0.0.1:${port}${path}`);
    for (const id of ids) expect((await ask(`/v1/generations/${id}`)).status).toBe(200);
    const page = (await (await ask('/v1/generations?limit=20')).json()) as { generations: { id: string }[] };
    expect(page.generations.map(({ id }) => id)).toEqual([...ids].sort().toReversed());
    expect(await (await ask('/metrics')).text()).toMatch(/reelhaul_generations\{state="succeeded"\} 12/);
    expect((await ask('/readyz')).status).toBe(200);
    const list = bed.spawnWorker({}, [cliFile, 'list', '--state', 'succeeded', '--json']);
    expect(await list.exited).toBe(0);
    expect(list.output().trim().split('\n')).toHaveLength(12);
  });

  test('cannot become more or fewer while there are generations: each other number is refused, with the right one', async () => {
    const bed = await setUp();
    await bed.enqueue('here to stay');
    for (const wrong of ['1', '2']) {
      const config = readConfig({ ...bed.environment, REDIS_SHARDS: wrong });
      const message = `Expected REDIS_SHARDS=4, since the generations under ${bed.prefix}`;
      await expect(createReelhaul({ config })).rejects.toThrow(message);
      await expect(bed.work({ config })).rejects.toThrow(message);
    }
    const single = await createTestbed({ cluster: cluster.nodes });
    cleanUps.push(() => single.close());
    await single.enqueue('in one shard');
    const config = readConfig({ ...single.environment, REDIS_SHARDS: '2' });
    await expect(createReelhaul({ config })).rejects.toThrow('Expected REDIS_SHARDS=1');
  });
});
