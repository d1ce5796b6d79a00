import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { ALARMS } from '../../src/telemetry/metrics.js';
import { startApi } from '../support/api.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { createTestbed, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';
import { scrape } from './scrape.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

describe('a worker with WORKER_PORT', () => {
  let bed: Testbed;
  let receiver: Receiver;
  let url: string;
  beforeAll(async () => {
    receiver = await startReceiver();
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    bed = await createTestbed({
      environment: {
        NOTIFY_SECRET: SECRET,
        NOTIFY_ALLOW_HOSTS: '127.0.0.1',
        LOG_LEVEL: 'info',
        LATE_CHECK_INTERVAL_MS: '100',
      },
    });
    bed.spawnWorker({ WORKER_PORT: String(port) });
    await until(
      () =>
        fetch(`${url}/readyz`).then(
          ({ status }) => status === 200,
          () => false,
        ),
      'the worker to be ready',
    );
  });
  afterAll(async () => {
    await bed.close();
    await receiver.close();
  });

  test('counts the way of a generation, its clocks, its calls, its bill and its bytes', async () => {
    const { id } = await bed.enqueue('counted', { notifyUrl: receiver.url });
    await bed.reaches(id, 'succeeded');
    await until(() => receiver.received.length === 1, 'the notification');
    const told = await until(async () => {
      const now = await scrape(url);
      const over = now.value('reelhaul_stage_runs_in_flight', { stage: 'notify' }) === 0;
      return over && now.value('reelhaul_generations', { state: 'succeeded' }) === 1 ? now : null;
    }, 'the notify stage to end, and the fleet to be read again');
    expect(told.value('reelhaul_transitions_total', { from: 'queued', to: 'submitting' })).toBe(1);
    expect(told.value('reelhaul_transitions_total', { to: 'succeeded' })).toBe(1);
    for (const clock of ['queue', 'provider', 'archive', 'generation', 'detection_delay'])
      expect([clock, told.value(`reelhaul_${clock}_seconds_count`)]).toEqual([clock, 1]);
    expect(told.value('reelhaul_polls_per_generation_count')).toBe(1);
    expect(told.value('reelhaul_polls_per_generation_sum')).toBe((await bed.reelhaul.get(id)).attempts.poll);
    expect(
      told.value('reelhaul_provider_calls_total', { call: 'submit', outcome: 'accepted', http: '2xx' }),
    ).toBe(1);
    expect(told.value('reelhaul_bills_total', { charge: 'charged' })).toBe(1);
    for (const stage of ['submit', 'archive', 'notify'])
      expect([stage, told.value('reelhaul_stage_run_seconds_count', { stage, outcome: 'done' })]).toEqual([
        stage,
        1,
      ]);
    expect(told.value('reelhaul_archived_bytes_total')).toBe(
      (await bed.reelhaul.get(id)).assets!.video.sizeBytes,
    );
    expect(told.value('reelhaul_notifications_total', { result: 'delivered' })).toBe(1);
    expect(told.value('reelhaul_redis_up')).toBe(1);
    // The embedded server tells no memory.
    if (realRedis) expect(told.value('reelhaul_redis_memory_used_bytes')).toBeGreaterThan(0);
    expect(told.value('nodejs_eventloop_lag_seconds')).toBeDefined();
  });

  test('counts an unclear submit, its alarm, and how many wait for a decision', async () => {
    const { id } = await bed.enqueue('unclear [sim: submit=502]');
    await bed.reaches(id, 'unconfirmed');
    const told = await scrape(url);
    expect(told.value('reelhaul_unconfirmed_total')).toBe(1);
    expect(told.value('reelhaul_alarms_total', { alarm: 'unconfirmed' })).toBe(1);
    expect(told.value('reelhaul_bills_total', { charge: 'possible' })).toBe(1);
    const later = await until(async () => {
      const now = await scrape(url);
      return now.value('reelhaul_generations', { state: 'unconfirmed' }) === 1 ? now : null;
    }, 'the fleet to say so');
    expect(
      later.value('reelhaul_provider_calls_total', { call: 'submit', outcome: 'unconfirmed', http: '5xx' }),
    ).toBe(1);
  });

  test('times the provider also for a task that ended after our patience', async () => {
    const before = (await scrape(url)).value('reelhaul_provider_seconds_count') ?? 0;
    const { id } = await bed.enqueue('late [sim: duration=4s]', { deadlineMs: 2000 });
    await bed.reaches(id, 'expired');
    expect((await scrape(url)).value('reelhaul_provider_seconds_count') ?? 0).toBe(before);
    await bed.reaches(id, 'succeeded');
    expect((await scrape(url)).value('reelhaul_provider_seconds_count')).toBe(before + 1);
  });

  test('counts the bill of a task once that was said to have failed before it succeeded', async () => {
    const charged = async () => (await scrape(url)).value('reelhaul_bills_total', { charge: 'charged' });
    const { id } = await bed.enqueue('failed before [sim: duration=500ms]');
    await bed.reaches(id, 'generating');
    const before = await charged();
    // As a failure leaves it, and a retry of its poll.
    const submits = JSON.stringify([
      { at: Date.now(), bill: 'possible', taskId: (await bed.reelhaul.get(id)).taskId },
    ]);
    await bed.redis.hset(`${bed.prefix}:g:${id}`, 'submits', submits);
    expect(await bed.reaches(id, 'succeeded')).toMatchObject({ charge: 'charged' });
    expect(await charged()).toBe(before);
  });

  test('counts failures by code, and the jobs that the sweep writes again', async () => {
    const { id } = await bed.enqueue('refused [sim: submit=rejected*forever]');
    await bed.reaches(id, 'failed');
    expect(
      (await scrape(url)).value('reelhaul_failures_total', { code: 'request_rejected', stage: 'submit' }),
    ).toBe(1);

    const lost = await bed.enqueue('lost', { delayMs: 3_600_000 });
    await bed.redis.zrem(`${bed.prefix}:submit:delayed`, lost.id);
    const told = await until(async () => {
      const now = await scrape(url);
      return (now.value('reelhaul_sweep_repairs_total') ?? 0) > 0 ? now : null;
    }, 'the sweep');
    expect(told.value('reelhaul_sweep_repairs_total')).toBe(1);
    expect(told.value('reelhaul_stage_workers', { stage: 'submit' })).toBe(1);
    expect(told.value('reelhaul_sweep_last_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000 - 3600);
  });
});

describe('the server', () => {
  test('tells which jobs a worker could take now: waiting, prioritized, and delayed ones whose time has come', async () => {
    const bed = await createTestbed();
    const api = await startApi(bed);
    await bed.enqueue('now');
    await bed.enqueue('now and first', { priority: 1 });
    await bed.enqueue('in a moment', { delayMs: 1 });
    await bed.enqueue('in an hour', { delayMs: 3_600_000 });
    const told = await until(async () => {
      const now = await scrape(api.url);
      return now.value('reelhaul_jobs_due', { stage: 'submit' }) === 3 ? now : null;
    }, 'three jobs to be due');
    expect(told.value('reelhaul_jobs_delayed', { stage: 'submit' })).toBe(1);
    expect(told.value('reelhaul_generations', { state: 'queued' })).toBe(4);
    expect(told.value('reelhaul_stage_workers', { stage: 'submit' })).toBe(0);
    await api.close();
    await bed.close();
  });

  test('tells what limits: the breakers, holds, the cap, the budget and what is spent of it', async () => {
    const bed = await createTestbed({
      environment: { MAX_IN_FLIGHT: '7', PRICES: '{"*":0.32}', BUDGET_PER_DAY: '0.64' },
    });
    const api = await startApi(bed);
    const workers = await bed.work();
    for (const script of ['', '[sim: submit=502]']) await bed.enqueue(`spent ${script}`);
    await until(
      async () =>
        isDeepStrictEqual(await bed.reelhaul.count(['succeeded', 'unconfirmed']), {
          succeeded: 1,
          unconfirmed: 1,
        }),
      'one to succeed and one to be doubtful',
    );
    await bed.enqueue('no room');
    await until(async () => (await bed.reelhaul.limits()).overBudget === 1, 'one to wait for its budget');
    await workers.close();
    await bed.redis.hset(`${bed.prefix}:gate:poll`, { openAt: 1, probes: 3, awayProbeAt: 1 });
    await bed.redis.hset(`${bed.prefix}:gate:submit`, {
      holdUntil: Date.now() + 3_590_000,
      refusedAt: 1,
      refusedWhy: 'misrouted',
      probeAt: 1,
    });
    const told = await until(async () => {
      const now = await scrape(api.url);
      return now.value('reelhaul_provider_away', { call: 'poll' }) === 1 ? now : null;
    }, 'the breaker to be told');
    expect(told.value('reelhaul_provider_away', { call: 'submit' })).toBe(0);
    expect(told.value('reelhaul_provider_away_probes', { call: 'poll' })).toBe(3);
    expect(told.value('reelhaul_provider_hold_seconds', { call: 'submit' })).toBeGreaterThan(3000);
    expect(told.value('reelhaul_provider_misrouted')).toBe(1);
    expect(told.value('reelhaul_provider_refused')).toBe(0);
    expect(told.value('reelhaul_provider_slowed_to')).toBeUndefined();
    expect(told.value('reelhaul_provider_in_flight')).toBe(1);
    expect(told.value('reelhaul_provider_in_flight_max')).toBe(7);
    expect(told.value('reelhaul_waiting_for_budget')).toBe(1);
    expect(told.value('reelhaul_spend', { bill: 'charged' })).toBe(0.32);
    expect(told.value('reelhaul_spend', { bill: 'possible' })).toBe(0.32);
    expect(told.value('reelhaul_budget')).toBe(0.64);
    await api.close();
    await bed.close();
  });

  test('gives its metrics to tokens of all tenants only', async () => {
    const bed = await createTestbed();
    const all = 'token-of-an-operator';
    const one = 'token-of-one-tenant';
    const api = await startApi(bed, { API_TOKENS: `${all}::ro,${one}:acme` });
    expect((await api.ask('GET', '/metrics')).status).toBe(401);
    expect((await api.ask('GET', '/metrics', { token: one })).status).toBe(403);
    expect((await api.ask('GET', '/metrics', { token: all })).text).toContain(
      'reelhaul_build_info{version="',
    );
    expect((await api.ask('GET', '/healthz')).body).toEqual({ ok: true });
    await api.close();
    await bed.close();
  });
});

test('every alarm that the code can raise is counted', () => {
  const sources = (folder: string): string[] =>
    readdirSync(folder).flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? sources(path) : [readFileSync(path, 'utf8')];
    });
  const raised = [...sources(join(root, 'src')), ...sources(join(root, 'workers'))].flatMap((source) =>
    [...source.matchAll(/alarm: '(\w+)'/g)].map(([, alarm]) => alarm!),
  );
  expect([...new Set(raised)].sort()).toEqual([...ALARMS].sort());
});
