/**
 * reelhaul on a Redis Cluster of real processes: everything works as on one server, and while slots move or a master is
 * replaced by its replica nothing is lost and no generation is posted twice.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Cluster } from 'ioredis';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import type { LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import type { GenerationEvent } from '../../src/store/event-stream.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { billsPerGeneration } from '../../src/simulator/simulator.js';
import { launchCluster, type TestCluster } from '../support/cluster.js';
import { SECRET, startReceiver } from '../support/receiver.js';
import { createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const cleanUps: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

async function setUp(cluster: TestCluster, environment: Record<string, string> = {}): Promise<Testbed> {
  // Longer than a worker needs to see that another server serves its slot.
  const bed = await createTestbed({
    cluster: cluster.nodes,
    environment: { LEDGER_HOLD_MS: '2500', ...environment },
  });
  bed.redis.on('error', () => {});
  cleanUps.push(() => bed.close());
  return bed;
}

async function enqueue(bed: Testbed, count: number, script: string): Promise<string[]> {
  const prompts = Array.from({ length: count }, (_, i) => `reel ${i} [sim: ${script}]`);
  return Promise.all(prompts.map(async (prompt) => (await bed.enqueue(prompt)).id));
}

async function allSucceedOnce(bed: Testbed, ids: readonly string[]): Promise<void> {
  const states = () =>
    Promise.all(ids.map((id) => bed.reelhaul.get(id).then((g) => g.state as string, String)));
  await until(
    async () => (await states()).every((state) => state === 'succeeded'),
    async () => `all to succeed; they are ${(await states()).join(', ')}`,
  );
  const ledger = bed.simulator.ledger();
  expect([...billsPerGeneration(ledger).values()].map(({ tasks }) => tasks)).toEqual(ids.map(() => 1));
  expect(ledger.totals).toMatchObject({ tasksCreated: ids.length, submits: ids.length });
}

/** Who serves the slot of this key now that `dead` is gone: any replica of it, as the masters vote. */
async function replaced(cluster: TestCluster, key: string, dead: LaunchedRedis): Promise<LaunchedRedis> {
  return until(async () => {
    const owner = await cluster.ownerOf(key);
    return owner.port !== dead.port && owner;
  }, 'a replica to take over');
}

const submits = (bed: Testbed) => bed.simulator.ledger().totals.submits;

(realRedis ? describe : describe.skip)('a Redis Cluster', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await launchCluster();
  });
  afterAll(() => cluster.stop());

  test('runs the whole pipeline: enqueue, events, notification, waitFor, list, cancel', async () => {
    const receiver = await startReceiver();
    cleanUps.push(() => receiver.close());
    const bed = await setUp(cluster, { NOTIFY_SECRET: SECRET, NOTIFY_ALLOW_HOSTS: '127.0.0.1' });
    const workers = [bed.spawnWorker(), bed.spawnWorker()];
    const seen: GenerationEvent[] = [];
    const stop = new AbortController();
    const first = await bed.enqueue('a reel', { idempotencyKey: 'one', notifyUrl: receiver.url });
    const reading = (async () => {
      for await (const event of bed.reelhaul.events({ cursor: '0-0', signal: stop.signal })) seen.push(event);
    })();
    const many = await bed.reelhaul.enqueueMany(
      Array.from({ length: 30 }, (_, i) => ({
        request: { prompt: `reel ${i}`, image },
        idempotencyKey: `k${i}`,
      })),
    );
    expect(many.every((result) => result.ok)).toBe(true);
    expect((await bed.enqueue('a reel', { idempotencyKey: 'one' })).id).toBe(first.id);
    expect((await bed.reelhaul.waitFor(first.id)).state).toBe('succeeded');
    const ids = many.flatMap((result) => (result.ok ? [result.generation.id] : []));
    await allSucceedOnce(bed, [first.id, ...ids]);
    expect((await bed.reelhaul.list({ state: 'succeeded', limit: 100 })).generations).toHaveLength(31);
    const { id } = await bed.enqueue('never mind', { delayMs: 3_600_000 });
    expect((await bed.reelhaul.cancel(id)).generation.state).toBe('canceled');
    await until(() => receiver.received.length === 1, 'the notification');
    expect(receiver.received[0]!.body).toMatchObject({
      type: 'generation.succeeded',
      data: { id: first.id },
    });
    const toSucceeded = () => seen.filter(({ to }) => to === 'succeeded').length;
    await until(() => toSucceeded() === 31, 'an event of each success');
    stop.abort();
    await reading;
    for (const { child } of workers) child.kill('SIGTERM');
    expect(await Promise.all(workers.map(({ exited }) => exited))).toEqual([0, 0]);
  });

  test('takes the connection of an app that has one', async () => {
    const bed = await setUp(cluster);
    await bed.work();
    const redis = new Cluster([...bed.config.REDIS_CLUSTER_NODES]);
    const reelhaul = await createReelhaul({ redis, prefix: bed.prefix, config: bed.config });
    const { id } = await reelhaul.enqueue({ prompt: 'through its own', image });
    expect((await reelhaul.waitFor(id)).state).toBe('succeeded');
    await reelhaul.close();
    expect(redis.status).toBe('ready');
    await redis.quit();
  });

  test('moves the slot of everything to another master under load: nothing is lost or posted twice', async () => {
    // A lock that a busy machine lets run out would make the submit unconfirmed, whatever becomes of the slot.
    const bed = await setUp(cluster, { JOB_LOCK_MS: '10000' });
    bed.spawnWorker();
    bed.spawnWorker();
    const ids = await enqueue(bed, 20, 'submit-delay=200ms, duration=500ms');
    await until(() => submits(bed) >= 4, 'submits under way');
    const owner = await cluster.ownerOf(bed.prefix);
    const [more] = await Promise.all([
      enqueue(bed, 10, 'duration=200ms'),
      cluster.moveSlot(
        bed.prefix,
        cluster.masters.find(({ port }) => port !== owner.port)!,
      ),
    ]);
    expect((await cluster.ownerOf(bed.prefix)).port).not.toBe(owner.port);
    await allSucceedOnce(bed, [...ids, ...more]);
  });

  test('is refused by whoever thinks that it is one server, with what to set', async () => {
    const bed = await setUp(cluster);
    const config = readConfig({ ...bed.environment, REDIS_CLUSTER_NODES: '' });
    const message = 'got a node of a Cluster: set REDIS_CLUSTER_NODES';
    await expect(bed.work({ config })).rejects.toThrow(message);
    await expect(createReelhaul({ config })).rejects.toThrow(message);
  });
});

(realRedis ? describe : describe.skip)('a master of a Redis Cluster', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await launchCluster();
  });
  afterAll(() => cluster.stop());

  test('dies in the middle of 20 generations: its replica takes over, one task each, one line in the log', async () => {
    const bed = await setUp(cluster, { LEDGER_WAIT_REPLICAS: '1' });
    const owner = await cluster.ownerOf(bed.prefix);
    await cluster.addReplica(owner);
    const workers = [bed.spawnWorker({ LOG_LEVEL: 'info' }), bed.spawnWorker({ LOG_LEVEL: 'info' })];
    for (const worker of workers)
      await until(() => worker.output().includes('worker started'), 'the workers');
    const ids = await enqueue(bed, 20, 'submit-delay=300ms, duration=600ms');
    const waited = bed.reelhaul.waitFor(ids[0]!).catch(() => bed.reelhaul.waitFor(ids[0]!));
    await until(() => submits(bed) >= 8, 'submits under way');
    // From now on there is no replica left to wait for.
    await owner.kill();
    await cluster.addReplica(await replaced(cluster, bed.prefix, owner));
    await allSucceedOnce(bed, ids);
    expect((await waited).state).toBe('succeeded');
    for (const worker of workers) {
      expect(worker.output().match(/the connection to Redis failed/g)).toHaveLength(1);
      expect(worker.output().match(/Redis is back/g)).toHaveLength(1);
    }
  });
});

test('a Cluster that cannot be reached, or is down, is said so with its nodes', async () => {
  const config = readConfig({ REDIS_CLUSTER_NODES: '127.0.0.1:9' });
  await expect(createReelhaul({ config, log: pino({ level: 'silent' }) })).rejects.toThrow(
    /The Redis Cluster of 127\.0\.0\.1:9 cannot be used: .*Check REDIS_CLUSTER_NODES/,
  );
});

test('settings that contradict a Cluster are refused', () => {
  const read = (environment: Record<string, string>) => () =>
    readConfig({ REDIS_CLUSTER_NODES: 'one:7000,two:7000', ...environment });
  expect(read({ REDIS_SENTINELS: 'one:26379' })).toThrow(/expected this or REDIS_SENTINELS, got both/);
  expect(read({ REDIS_URL: 'redis://one:7000/3' })).toThrow(/a Cluster has only database 0/);
  expect(read({})).not.toThrow();
});
