/**
 * What reelhaul promises while Redis is down, paused, full, read-only, replaced by its replica, or has forgotten its
 * last second: workers go on by themselves, nothing is lost that Redis kept, and no generation is posted twice.
 */
import { readdir, stat, truncate } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { billsPerGeneration } from '../../src/simulator/simulator.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { REFUSALS } from '../support/refusals.js';
import { launchReplica, launchWatched } from '../support/sentinel.js';
import { createTestbed, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

/** Shorter than a worker needs to connect again would be unsafe; the tests' workers try every 100 ms at first. */
const HOLD = { LEDGER_HOLD_MS: '1500' };

const cleanUps: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});
/** Killed first: a server that cannot save, or waits for its replica, takes its time to stop. */
const stopLater = (server: LaunchedRedis): LaunchedRedis => {
  cleanUps.push(async () => {
    await server.kill();
    await server.stop();
  });
  return server;
};

async function setUp(redis: LaunchedRedis, environment: Record<string, string> = {}): Promise<Testbed> {
  const bed = await createTestbed({ redisUrl: redis.url, environment: { ...HOLD, ...environment } });
  bed.redis.on('error', () => {});
  cleanUps.push(() => bed.close());
  return bed;
}

async function own(extraArguments: string[] = []): Promise<LaunchedRedis> {
  return stopLater(await launchRedis(extraArguments));
}

async function enqueue(bed: Testbed, count: number, script: string): Promise<string[]> {
  const prompts = Array.from({ length: count }, (_, i) => `reel ${i} [sim: ${script}]`);
  return Promise.all(prompts.map(async (prompt) => (await bed.enqueue(prompt)).id));
}

/** All of them succeed, each with one task: also while the producer's own connection is still down. */
async function allSucceedOnce(bed: Testbed, ids: readonly string[], giveUpAfterMs = 20_000): Promise<void> {
  const states = () =>
    Promise.all(ids.map((id) => bed.reelhaul.get(id).then((g) => g.state as string, String)));
  await until(
    async () => (await states()).every((state) => state === 'succeeded'),
    async () => `all to succeed; they are ${(await states()).join(', ')}`,
    giveUpAfterMs,
  );
  const ledger = bed.simulator.ledger();
  expect([...billsPerGeneration(ledger).values()].map(({ tasks }) => tasks)).toEqual(ids.map(() => 1));
  expect(ledger.totals).toMatchObject({ tasksCreated: ids.length, submits: ids.length });
}

interface Line {
  readonly msg: string;
  readonly alarm?: string;
  readonly generationId?: string;
  readonly taskId?: string;
}
/** A log to look into. */
function listen(): { log: pino.Logger; lines: Line[] } {
  const lines: Line[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line) as Line);
  return { log: pino({ level: 'info' }, { write }), lines };
}

const submits = (bed: Testbed) => bed.simulator.ledger().totals.submits;

(realRedis ? describe : describe.skip)('Redis', () => {
  test('killed and started again: workers stay up, go on, and post nothing twice; the log has a line for it', async () => {
    const redis = await own();
    const bed = await setUp(redis);
    const workers = [bed.spawnWorker({ LOG_LEVEL: 'info' }), bed.spawnWorker({ LOG_LEVEL: 'info' })];
    for (const worker of workers)
      await until(() => worker.output().includes('worker started'), 'the workers');
    const ids = await enqueue(bed, 20, 'submit-delay=400ms, duration=300ms');
    await until(() => submits(bed) >= 5, 'submits under way');
    await redis.kill();
    for (const worker of workers)
      await until(() => worker.output().includes('connection to Redis failed'), 'the worker to miss Redis');
    // Long enough for several tries of every connection.
    await pause(700);
    await redis.start();
    await allSucceedOnce(bed, ids);
    for (const worker of workers) {
      const output = worker.output();
      expect([worker.child.exitCode, output]).toEqual([null, expect.any(String)]);
      expect(output.match(/"err":.*the connection to Redis failed/g)).toHaveLength(1);
      expect(output.match(/Redis is back/g)).toHaveLength(1);
    }
  });

  test.each<[string, (redis: LaunchedRedis, bed: Testbed) => Promise<unknown>]>([
    [
      'stopped (SIGSTOP) for longer than a job lock',
      async ({ pid }) => {
        process.kill(pid, 'SIGSTOP');
        await pause(2500);
        process.kill(pid, 'SIGCONT');
      },
    ],
    [
      'paused (CLIENT PAUSE) for longer than a job lock',
      (_, bed) => bed.redis.call('CLIENT', 'PAUSE', 2500, 'ALL'),
    ],
  ])('%s: nothing is posted twice', async (_, interrupt) => {
    const redis = await own();
    const bed = await setUp(redis, { JOB_LOCK_MS: '1000' });
    bed.spawnWorker();
    bed.spawnWorker();
    const ids = await enqueue(bed, 6, 'submit-delay=800ms, duration=300ms');
    await until(() => submits(bed) >= 3, 'submits under way');
    await interrupt(redis, bed);
    await allSucceedOnce(bed, ids);
  });

  test.each(REFUSALS)(
    'refusing writes ($code) while a submit is under way: its task id is kept and saved',
    async ({ code, begin, end }) => {
      const redis = await own();
      const bed = await setUp(redis);
      const { log, lines } = listen();
      await bed.work({ log });
      const [id = ''] = await enqueue(bed, 1, 'submit-delay=1500ms');
      await until(() => submits(bed) === 1, 'the submit to arrive');
      await begin(bed.redis);
      const alarm = await until(() => lines.find((l) => l.alarm === 'task_not_saved'), 'the alarm');
      expect(alarm.taskId).toBe(bed.simulator.ledger().tasks[0]!.taskId);
      expect(JSON.stringify(alarm)).toContain(code);
      expect((await bed.reelhaul.get(id)).state).toBe('submitting');
      // What is enqueued meanwhile is refused aloud, and not half written.
      await expect(bed.enqueue('in vain')).rejects.toThrow(code);
      await end(bed.redis);
      await allSucceedOnce(bed, [id]);
      expect((await bed.reelhaul.list()).generations).toHaveLength(1);
    },
  );

  test('refusing writes before a submit: nothing is posted until the record can be written', async () => {
    const redis = await own();
    const bed = await setUp(redis);
    const ids = await enqueue(bed, 2, 'duration=0');
    const { log, lines } = listen();
    // Redis turns full after the start, which would refuse it.
    const workers = await bed.work({ log, stages: ['poll', 'archive'] });
    await bed.redis.config('SET', 'maxmemory', '1');
    await workers.close();
    await expect(bed.work({ log })).rejects.toThrow(/expected it to take writes, got: OOM/);
    expect(submits(bed)).toBe(0);
    await bed.redis.config('SET', 'maxmemory', '0');
    await bed.work({ log });
    await allSucceedOnce(bed, ids);
    expect(lines.some((l) => l.alarm === 'task_not_saved')).toBe(false);
  });
});

(realRedis ? describe : describe.skip)('a failover by Sentinel', () => {
  test('in the middle of 20 generations: workers, producer and waitFor follow the new master, one task each', async () => {
    const watched = await launchWatched();
    cleanUps.push(() => watched.stop());
    // The testbed's own connection goes to the server that will be the master at the end, and cleans up there.
    const bed = await setUp(watched.replica, {
      REDIS_URL: 'redis://127.0.0.1:9',
      REDIS_SENTINELS: watched.sentinels,
      REDIS_SENTINEL_NAME: watched.name,
    });
    bed.spawnWorker();
    bed.spawnWorker();
    const ids = await enqueue(bed, 20, 'submit-delay=300ms, duration=600ms');
    // An app that waits again when Redis is away: how often depends on how long the failover takes.
    const waited = until(() => bed.reelhaul.waitFor(ids[0]!).catch(() => null), 'an end of the first');
    await until(() => submits(bed) >= 8, 'submits under way');
    await watched.master.kill();
    await watched.failedOver();
    await allSucceedOnce(bed, ids);
    expect((await waited).state).toBe('succeeded');
  });

  test('a Sentinel that hangs holds up neither the start nor the failover', async () => {
    const watched = await launchWatched();
    cleanUps.push(() => watched.stop());
    const mute = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    cleanUps.push(() => new Promise((resolve) => mute.close(resolve)));
    const { port } = mute.address() as AddressInfo;
    const bed = await setUp(watched.replica, {
      REDIS_URL: 'redis://127.0.0.1:9',
      REDIS_SENTINELS: `127.0.0.1:${port},${watched.sentinels}`,
      REDIS_SENTINEL_NAME: watched.name,
    });
    bed.spawnWorker();
    await bed.reaches((await bed.enqueue('before')).id, 'succeeded');
    await watched.master.kill();
    await watched.failedOver();
    const { id } = await until(
      () => bed.enqueue('after').catch(() => null),
      'the producer to follow the new master',
    );
    await bed.reaches(id, 'succeeded');
  });

  test('a list of Sentinels that cannot be read is refused, each entry of it', () => {
    const read = () => readConfig({ REDIS_SENTINELS: 'one:26379, two, three:70000' });
    expect(read).toThrow(/REDIS_SENTINELS: expected host:port .*got "two"[^]*got "three:70000"/);
    expect(readConfig({ REDIS_SENTINELS: 'one:26379,[::1]:26380' }).REDIS_SENTINELS).toEqual([
      { host: 'one', port: 26_379 },
      { host: '::1', port: 26_380 },
    ]);
  });

  test('Sentinels that know no such master are named', async () => {
    const bed = await setUp(await own(), {});
    const { port } = await own();
    const environment = { ...bed.config, REDIS_SENTINELS: [{ host: '127.0.0.1', port }] };
    await expect(createReelhaul({ config: environment })).rejects.toThrow(
      new RegExp(`master mymaster of the Sentinels 127.0.0.1:${port} cannot be used`),
    );
  });
});

(realRedis ? describe : describe.skip)('a Redis that forgot its last second', () => {
  async function tailOf(redis: Redis): Promise<string> {
    const [, directory = ''] = await redis.config('GET', 'dir');
    const folder = join(directory, 'appendonlydir');
    return join(
      folder,
      (await readdir(folder)).find((name) => name.endsWith('.incr.aof'))!,
    );
  }

  /** Everything since then is gone, as after a power loss: the server is killed, its file cut, and it starts again. */
  async function forget(redis: LaunchedRedis, file: string, sizeBytes: number): Promise<void> {
    await redis.kill();
    await truncate(file, sizeBytes);
    await redis.start();
  }

  test('does not get a request posted again whose answer is still out', async () => {
    const redis = await own();
    const bed = await setUp(redis);
    const ids = await enqueue(bed, 3, 'submit-delay=1500ms');
    const file = await tailOf(bed.redis);
    const { size } = await stat(file);
    bed.spawnWorker();
    bed.spawnWorker();
    await until(() => submits(bed) === 3, 'the submits to arrive');
    await forget(redis, file, size);
    await allSucceedOnce(bed, ids);
  });

  test('gets its task ids back from the workers', async () => {
    const redis = await own();
    const bed = await setUp(redis);
    const ids = await enqueue(bed, 3, 'duration=2s');
    const file = await tailOf(bed.redis);
    const { size } = await stat(file);
    const { log, lines } = listen();
    await bed.work({ log });
    await bed.work({ log });
    for (const id of ids) await bed.reaches(id, 'generating');
    await forget(redis, file, size);
    await allSucceedOnce(bed, ids);
    const told = lines.filter(({ alarm }) => alarm === 'post_forgotten').map((line) => line.generationId);
    expect(new Set(told)).toEqual(new Set(ids));
  });

  test('and with it a whole generation: its paid task is named in the log', async () => {
    const redis = await own();
    const bed = await setUp(redis);
    const { log, lines } = listen();
    await bed.work({ log });
    const file = await tailOf(bed.redis);
    const { size } = await stat(file);
    const [id = ''] = await enqueue(bed, 1, 'duration=1h');
    await bed.reaches(id, 'generating');
    await forget(redis, file, size);
    const alarm = await until(() => lines.find((l) => l.alarm === 'generation_forgotten'), 'the alarm');
    expect(alarm).toMatchObject({ generationId: id, taskId: bed.simulator.ledger().tasks[0]!.taskId });
    expect(submits(bed)).toBe(1);
  });
});

(realRedis ? describe : describe.skip)('the ledger write', () => {
  test('waits for a replica: while it is away nothing is posted and the rest goes on; when it is back, once', async () => {
    const redis = await own(['--repl-diskless-sync-delay', '0']);
    const replica = stopLater(await launchReplica(redis));
    const bed = await setUp(redis, { LEDGER_WAIT_REPLICAS: '1', LEDGER_WAIT_TIMEOUT_MS: '150' });
    const { log, lines } = listen();
    await bed.work({ log });
    const before = await enqueue(bed, 1, 'duration=1s');
    await bed.reaches(before[0]!, 'generating');
    process.kill(replica.pid, 'SIGSTOP');
    try {
      const held = await enqueue(bed, 5, 'duration=0');
      await bed.reaches(before[0]!, 'succeeded');
      const tries = (id: string) =>
        lines.filter((l) => l.generationId === id && /far enough/.test(l.msg)).length;
      await until(() => held.every((id) => tries(id) >= 2), 'each submit to be put off twice');
      expect(submits(bed)).toBe(1);
      process.kill(replica.pid, 'SIGCONT');
      await allSucceedOnce(bed, [...before, ...held]);
    } finally {
      process.kill(replica.pid, 'SIGCONT');
    }
  });

  test('on the disk is refused at start where the server cannot tell', async () => {
    const bed = await setUp(await own(['--appendonly', 'no']), { LEDGER_WAIT_AOF: 'true' });
    await expect(bed.work()).rejects.toThrow(
      /LEDGER_WAIT_AOF=true expects Redis or Valkey 7\.2 or later with appendonly yes, got: ERR/,
    );
  });
});

(realRedis ? describe : describe.skip)('a server that takes no writes is refused at start', () => {
  test('a replica, with the address of its master', async () => {
    const redis = await own(['--repl-diskless-sync-delay', '0']);
    const replica = stopLater(await launchReplica(redis));
    const bed = await setUp(redis);
    const config = { ...bed.config, REDIS_URL: replica.url };
    const message = `expected a master, got a replica of 127.0.0.1:${redis.port}`;
    await expect(bed.work({ config })).rejects.toThrow(message);
    await expect(createReelhaul({ config })).rejects.toThrow(message);
  });
});
