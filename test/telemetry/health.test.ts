import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { createFleet } from '../../src/telemetry/snapshot.js';
import { createHealth, type HealthDeps } from '../../src/telemetry/health.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import type { Vitals } from '../../src/generation/work.js';
import { REFUSALS } from '../support/refusals.js';
import { cliFile, createTestbed, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';
import { pino } from 'pino';

interface Answer {
  readonly status: number;
  readonly body: { readonly ok: boolean; readonly reasons?: readonly string[] };
}

async function ask(url: string): Promise<Answer | null> {
  try {
    const response = await fetch(url);
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  } catch {
    return null;
  }
}

let bed: Testbed;
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  await bed?.close();
  for (const close of closing.splice(0)) await close();
});

(realRedis ? describe : describe.skip)('with a Redis of its own', () => {
  let own: Testbed;
  let redis: LaunchedRedis;
  let places: readonly string[];
  let queued = 0;
  const allReady = async () => {
    for (const at of places)
      await until(async () => (await ask(`${at}/readyz`))?.status === 200, `${at} to be ready`);
  };
  beforeAll(async () => {
    redis = await launchRedis();
    own = await createTestbed({ redisUrl: redis.url });
    const ports = [await freePort(), await freePort()];
    own.spawnWorker({ WORKER_PORT: String(ports[0]) });
    own.spawnWorker({ PORT: String(ports[1]) }, [cliFile, 'serve']);
    places = ports.map((port) => `http://127.0.0.1:${port}`);
    await allReady();
  });
  afterEach(async () => {
    // A test that failed midway must not leave a stopped server that everything waits for.
    process.kill(redis.pid, 'SIGCONT');
    await allReady();
  });
  afterAll(async () => {
    await own?.close();
    // One that cannot save does not like to stop.
    await redis?.kill();
    await redis?.stop();
  });

  test('a stopped Redis makes worker and server unready, with the reason, and not dead; they recover', async () => {
    process.kill(redis.pid, 'SIGSTOP');
    for (const at of places) {
      const ready = await ask(`${at}/readyz`);
      expect(ready?.status).toBe(503);
      expect(ready?.body.reasons?.[0]).toMatch(/^Redis has not answered a write for \d+ ms$/);
      expect(await ask(`${at}/healthz`)).toEqual({ status: 200, body: { ok: true } });
      const metrics = await (await fetch(`${at}/metrics`)).text();
      expect(metrics).toMatch(/^reelhaul_redis_up 0$/m);
      expect(metrics).not.toMatch(/^reelhaul_generations\{/m);
    }
    process.kill(redis.pid, 'SIGCONT');
    await allReady();
  });

  test.each(REFUSALS)(
    'a Redis that answers and takes no writes ($code) is told so by readyz and by a metric, and so is its end',
    async ({ code, begin, end }) => {
      const told = async (at: string) => {
        const metrics = await (await fetch(`${at}/metrics`)).text();
        return metrics.match(/^reelhaul_redis_(up|takes_writes) \d$/gm);
      };
      for (const at of places)
        expect(await told(at)).toEqual(['reelhaul_redis_up 1', 'reelhaul_redis_takes_writes 1']);
      await own.enqueue('counted afterwards', { delayMs: 3_600_000 });
      queued += 1;
      await begin(own.redis);
      for (const at of places) {
        expect((await ask(`${at}/readyz`))?.body.reasons?.[0]).toMatch(`Redis refused a write: ${code} `);
        // Figures are good for a second: those of after are waited for.
        const counted = async () =>
          (await (await fetch(`${at}/metrics`)).text()).includes(
            `reelhaul_generations{state="queued"} ${queued}`,
          );
        await until(counted, 'what Redis still answers to be told');
        expect(await told(at)).toEqual(['reelhaul_redis_up 1', 'reelhaul_redis_takes_writes 0']);
      }
      await end(own.redis);
      for (const at of places)
        expect(await told(at)).toEqual(['reelhaul_redis_up 1', 'reelhaul_redis_takes_writes 1']);
    },
  );
});

test('a worker that no longer takes the jobs of a stage is unready and says which', async () => {
  bed = await createTestbed();
  const port = await freePort();
  bed.spawnWorker({ WORKER_PORT: String(port) });
  const at = `http://127.0.0.1:${port}`;
  await until(async () => (await ask(`${at}/readyz`))?.status === 200, 'the worker to be ready');
  // With room for none BullMQ takes none, on any worker: alive, connected, and standing still.
  await bed.redis.hset(`${bed.prefix}:submit:meta`, 'concurrency', '0');
  await bed.enqueue('left lying');
  const unready = await until(async () => {
    const answer = await ask(`${at}/readyz`);
    return answer?.status === 503 ? answer : null;
  }, 'the worker to be unready');
  expect(unready.body.reasons).toEqual([
    expect.stringMatching(/^submit takes no jobs: 1 are due, none begun for \d+ ms$/),
  ]);
  await bed.redis.hdel(`${bed.prefix}:submit:meta`, 'concurrency');
  await until(async () => (await ask(`${at}/readyz`))?.status === 200, 'it to be ready again');
});

describe('the judgement', () => {
  let now = 1_000_000;
  const clock = { now: () => now, dice: () => 0.5 };
  const well: Vitals = {
    name: 'submit',
    looping: true,
    running: 0,
    concurrency: 10,
    oldestBeganAt: null,
    begun: 3,
    runLimitMs: 60_000,
    heldBecause: null,
  };

  async function healthOf(vitals: () => readonly Vitals[] | null, deps: Partial<HealthDeps> = {}) {
    bed = await createTestbed();
    const hub: Hub = createHub({
      config: bed.config,
      log: pino({ level: 'silent' }),
      redis: bed.redis,
      clock,
    });
    closing.push(() => hub.queues.close());
    const fleet = createFleet({ ...hub, now: () => now });
    return createHealth({
      redis: bed.redis,
      prefix: bed.prefix,
      fleet,
      vitals,
      sweepIntervalMs: 60_000,
      now: () => now,
      ...deps,
    });
  }

  test('a loop that has ended is no longer alive', async () => {
    const health = await healthOf(() => [{ ...well, looping: false }]);
    expect(health.alive()).toEqual(['the loop of submit has ended']);
    expect(await health.ready()).toEqual(['the loop of submit has ended']);
  });

  test('a run that goes on beyond its limit is told', async () => {
    const health = await healthOf(() => [{ ...well, running: 1, oldestBeganAt: now - 60_001 }]);
    expect(await health.ready()).toEqual(['a run of submit has been going on for 60001 ms']);
    expect(health.alive()).toEqual([]);
  });

  test('work that is due is no reproach while there is no room, while it is taken, or while the stage holds still', async () => {
    let vitals: Vitals = well;
    const health = await healthOf(() => [vitals]);
    await bed.enqueue('due');
    const lookAfter = async (ms: number) => {
      now += ms;
      return health.ready();
    };
    expect(await lookAfter(0)).toEqual([]);
    vitals = { ...well, begun: 4 };
    expect(await lookAfter(30_000)).toEqual([]);
    vitals = { ...vitals, running: 10 };
    expect(await lookAfter(30_000)).toEqual([]);
    vitals = { ...vitals, running: 0 };
    expect(await lookAfter(5000)).toEqual([]);
    await bed.redis.set(`${bed.prefix}:submit:limiter`, '1', 'PX', 60_000);
    expect(await lookAfter(30_000)).toEqual([]);
    await bed.redis.del(`${bed.prefix}:submit:limiter`);
    expect(await lookAfter(5000)).toEqual([]);
    // Nobody looked for long: nothing is known of what was in between.
    expect(await lookAfter(120_000)).toEqual([]);
    expect(await lookAfter(20_000)).toEqual(['submit takes no jobs: 1 are due, none begun for 20000 ms']);
  });

  test('Redis is asked for the write and for what is due side by side, so that a hanging one is waited for once', async () => {
    let readBegun = () => {};
    const begun = new Promise<void>((resolve) => (readBegun = resolve));
    // A write that is answered only when the other question is there as well.
    const redis = { set: () => begun } as unknown as HealthDeps['redis'];
    const fleet: HealthDeps['fleet'] = { read: () => Promise.resolve(readBegun()).then(() => null) };
    const health = await healthOf(() => [well], { redis, fleet });
    expect(await health.ready()).toEqual([]);
  });

  test('a worker that is still starting is not ready, and a sweep that no longer ends is told', async () => {
    let vitals: readonly Vitals[] | null = null;
    const health = await healthOf(() => vitals);
    expect(await health.ready()).toEqual(['the stages are still being started']);
    vitals = [well];
    now += 599_000;
    expect(await health.ready()).toEqual([]);
    now += 2000;
    expect(await health.ready()).toEqual(['no sweep has ended for 601000 ms']);
    await bed.redis.set(`${bed.prefix}:swept`, now);
    now += 2000;
    expect(await health.ready()).toEqual([]);
  });
});
