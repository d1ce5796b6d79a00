/** Processes whose own clock is wrong: real ones, whose `Date.now` is shifted before anything else is loaded. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createHub } from '../../src/pipeline/context.js';
import { cliFile, createTestbed, type Testbed, type WorkerProcess } from '../support/testbed.js';
import { until } from '../support/until.js';

const shiftedClock = fileURLToPath(new URL('../support/shifted-clock.mjs', import.meta.url));
const DAY_MS = 86_400_000;
let bed: Testbed;
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reelhaul-clock-'));
  bed = await createTestbed({
    environment: { RETENTION_MS: String(DAY_MS), IDEMPOTENCY_TTL_MS: String(DAY_MS) },
  });
});
afterEach(async () => {
  await bed.close();
  await rm(folder, { recursive: true });
});

const shift = (ms: number) => writeFile(join(folder, 'shift'), String(ms));

function spawnShifted(command: readonly string[], environment: Record<string, string> = {}): WorkerProcess {
  const shifted = { SHIFT_FILE: join(folder, 'shift'), LOG_LEVEL: 'warn', ...environment };
  return bed.spawnWorker(shifted, ['--import', shiftedClock, cliFile, ...command]);
}

async function readiness(port: number): Promise<{ status: number; reasons: readonly string[] } | null> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`);
    const { reasons = [] } = (await response.json()) as { reasons?: string[] };
    return { status: response.status, reasons };
  } catch {
    return null;
  }
}

test('a worker whose clock is 31 days ahead takes no jobs, prunes nothing, says so once, and goes on when it is right', async () => {
  await bed.reelhaul.enqueue(
    { prompt: 'kept', image: 'https://example.com/a.png' },
    { idempotencyKey: 'once' },
  );
  const first = await bed.work();
  const [kept] = (await bed.reelhaul.list()).generations;
  await bed.reaches(kept!.id, 'succeeded');
  await first.close();
  await shift(31 * DAY_MS);
  const port = await freePort();
  const worker = spawnShifted(['worker'], { WORKER_PORT: String(port) });
  const unready = await until(async () => {
    const answer = await readiness(port);
    return answer?.status === 503 && answer.reasons.some((one) => one.includes('clock')) ? answer : null;
  }, 'the worker to be unready');
  expect(unready.reasons).toEqual([
    expect.stringMatching(
      /^no jobs are taken: the clock of this machine is 26784\d\d\.\d s ahead of that of Redis/,
    ),
  ]);
  const { id } = await bed.enqueue('waits for a worker with a right clock');
  expect((await bed.reelhaul.get(id)).attempts.submit).toBe(0);
  const again = await bed.reelhaul.enqueue(
    { prompt: 'kept', image: 'https://example.com/a.png' },
    { idempotencyKey: 'once' },
  );
  expect(again.id).toBe(kept!.id);
  expect((await bed.reelhaul.get(id)).state).toBe('queued');
  await shift(0);
  await bed.reaches(id, 'succeeded');
  await until(async () => (await readiness(port))?.status === 200, 'the worker to be ready');
  const said = worker.output();
  expect(said.match(/"alarm":"clock"/g)).toHaveLength(1);
  expect(said).toContain('it takes jobs again');
  expect((await bed.reelhaul.get(kept!.id)).state).toBe('succeeded');
});

test('a worker whose clock jumps while it works stops taking jobs, and another finishes what is queued', async () => {
  await shift(0);
  const port = await freePort();
  spawnShifted(['worker'], { WORKER_PORT: String(port) });
  const one = await bed.enqueue('before the jump');
  await bed.reaches(one.id, 'succeeded');
  await shift(-DAY_MS);
  await until(async () => (await readiness(port))?.status === 503, 'the worker to be unready');
  const { id } = await bed.enqueue('after the jump');
  await bed.work();
  const done = await bed.reaches(id, 'succeeded');
  expect(done.createdAt).toBeLessThan(Date.now() + 1000);
});

test('a producer whose clock is a day ahead enqueues at the time of Redis', async () => {
  await shift(DAY_MS);
  await bed.work();
  const enqueued = spawnShifted([
    'enqueue',
    '--prompt',
    'from tomorrow',
    '--image',
    'https://example.com/a.png',
  ]);
  expect(await enqueued.exited).toBe(0);
  const [only] = (await bed.reelhaul.list()).generations;
  await bed.reaches(only!.id, 'succeeded');
  expect(Math.abs(only!.createdAt - Date.now())).toBeLessThan(DAY_MS / 2);
});

test('a sweep that a wrong clock planned for tomorrow comes now', async () => {
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  const real = Date.now;
  Date.now = () => real() + DAY_MS;
  try {
    await hub.queues.scheduleSweep(bed.config.SWEEP_INTERVAL_MS);
  } finally {
    Date.now = real;
    await hub.queues.close();
  }
  await bed.redis.zadd(`${bed.prefix}:sweep:repeat`, Date.now() + DAY_MS, 'sweep');
  await bed.work();
  await until(async () => (await bed.redis.get(`${bed.prefix}:swept`)) !== null, 'a sweep');
});
