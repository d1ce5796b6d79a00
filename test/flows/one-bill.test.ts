/** At most one bill per generation: what is unclear is never posted again by itself. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { createTestbed, type Testbed, type TestbedOptions } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

async function setUp(options?: TestbedOptions): Promise<Testbed> {
  bed = await createTestbed(options);
  return bed;
}
const totals = () => bed.simulator.ledger().totals;

describe('an unclear answer', () => {
  test.each([
    'reset-after',
    '502-after',
    '504-after',
    '524-after',
    '500-after',
    'truncated-after',
    'no-id-after',
    'empty-after',
    'html-after',
    'garbage-after',
    'reset-before',
    '502',
  ])('%s: does not post again, and waits for a decision', async (step) => {
    await setUp({ environment: { UNCONFIRMED_WAIT_MS: '0' } });
    await bed.work();
    const { id } = await bed.enqueue(`unclear [sim: submit=${step}]`);
    const generation = await bed.reaches(id, 'unconfirmed');
    expect(generation).toMatchObject({ charge: 'possible', taskId: null, attempts: { submit: 1 } });
    await until(
      async () => (await bed.redis.zscore(`${bed.prefix}:live`, id)) === null,
      'the generation to be held',
    );
    expect(totals().submits).toBe(1);
    expect((await bed.reelhaul.list({ state: 'unconfirmed' })).generations.map((g) => g.id)).toEqual([id]);
  });

  test('the policy fail ends it as submission_unconfirmed', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=502-after]', { onUnconfirmed: 'fail' });
    const generation = await bed.reelhaul.waitFor(id);
    expect(generation.failure).toMatchObject({
      code: 'submission_unconfirmed',
      charge: 'possible',
      stage: 'submit',
    });
    expect(totals().submits).toBe(1);
    await expect(bed.reelhaul.retry(id)).rejects.toMatchObject({ code: 'rebill_not_allowed' });
  });

  test('the policy resubmit posts once more, and then holds', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=502-after*2]', { onUnconfirmed: 'resubmit' });
    await until(() => totals().submits === 2, 'the second submit');
    await until(
      async () => (await bed.redis.zscore(`${bed.prefix}:live`, id)) === null,
      'the generation to be held',
    );
    expect(await bed.reelhaul.get(id)).toMatchObject({
      state: 'unconfirmed',
      charge: 'possible',
      attempts: { submit: 2 },
    });
  });

  test('an operator adopts the task, and it is followed to its end', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=504-after]');
    await bed.reaches(id, 'unconfirmed');
    const { taskId } = bed.simulator.ledger().tasks[0]!;
    await bed.reelhaul.decide(id, { adopt: taskId });
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', taskId });
    expect(totals().submits).toBe(1);
  });

  test('an operator accepts a second bill', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=504-after]');
    await bed.reaches(id, 'unconfirmed');
    await bed.reelhaul.decide(id, { resubmit: true });
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { submit: 2 } });
  });

  test('an operator gives up', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=504-after]');
    await bed.reaches(id, 'unconfirmed');
    expect(await bed.reelhaul.decide(id, { giveUp: true })).toMatchObject({
      state: 'failed',
      failure: { code: 'submission_unconfirmed' },
    });
    await expect(bed.reelhaul.decide(id, { giveUp: true })).rejects.toMatchObject({ code: 'state_conflict' });
  });
});

describe('an answer that says surely not accepted', () => {
  test.each(['429*3', '429', 'rate-in-200*2'])('%s: is waited out without using up tries', async (step) => {
    await setUp({ environment: { SUBMIT_ATTEMPTS: '1' } });
    await bed.work();
    const { id } = await bed.enqueue(`busy [sim: submit=${step}, retry-after=50ms]`);
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
    expect(totals().tasksCreated).toBe(1);
  });

  test.each([
    '401',
    '402',
    'quota',
    'flat:403:insufficient_user_quota',
    'error:400:pre_consume_token_quota_failed',
    'redirect',
    '301',
    '405',
    'html-before:404',
    'html-before:403',
    'flat:403',
  ])('%s: stops submitting for all, keeps everything, and goes on by itself', async (step) => {
    await setUp();
    await bed.work();
    const first = await bed.enqueue(`refused [sim: submit=${step}*3]`);
    const second = await bed.enqueue('behind it');
    for (const { id } of [first, second]) expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(totals().tasksCreated).toBe(2);
  });

  test.each(['rejected*forever', 'invalid-request*forever', '400*forever'])(
    '%s: fails at once and is not billed',
    async (step) => {
      await setUp();
      await bed.work();
      const { id } = await bed.enqueue(`wrong [sim: submit=${step}]`);
      const generation = await bed.reelhaul.waitFor(id);
      expect(generation.failure).toMatchObject({
        code: 'request_rejected',
        charge: 'none',
        retryable: false,
      });
      expect(totals()).toMatchObject({ submits: 1, tasksCreated: 0 });
    },
  );

  test('a gateway without a channel for the model is waited for', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('no channel [sim: submit=error:503:model_not_found*2]');
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
    expect(totals()).toMatchObject({ submits: 3, tasksCreated: 1 });
  });

  test('a gateway without a channel is as unclear as any 503 once no code is listed', async () => {
    await setUp({ environment: { SUBMIT_NOT_ACCEPTED_CODES: 'none' } });
    await bed.work();
    const { id } = await bed.enqueue('no channel [sim: submit=error:503:model_not_found]');
    expect(await bed.reaches(id, 'unconfirmed')).toMatchObject({ charge: 'possible' });
  });

  test('a provider that cannot be reached ends as submit_attempts_exhausted, and can be retried without rebill', async () => {
    await setUp({ environment: { SUBMIT_ATTEMPTS: '3', COMETAPI_BASE_URL: 'http://127.0.0.1:9' } });
    await bed.work();
    const { id } = await bed.enqueue('nobody home');
    const generation = await bed.reelhaul.waitFor(id);
    expect(generation.failure).toMatchObject({ code: 'submit_attempts_exhausted', charge: 'none' });
    expect(generation.attempts.submit).toBe(3);
    expect((await bed.reelhaul.retry(id)).failure).toBeNull();
  });

  test('three different generations that are forbidden in a row mean the key: the third goes back unharmed', async () => {
    await setUp({ environment: { SUBMIT_CONCURRENCY: '1', REFUSED_PROBE_MS: '60000' } });
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) ids.push((await bed.enqueue(`forbidden ${i} [sim: submit=403*forever]`)).id);
    await bed.work();
    await until(async () => (await bed.reelhaul.count(['failed']))['failed'] === 2, 'two rejections');
    await until(() => totals().submits === 3, 'the third submit');
    await bed.reaches(ids[2]!, 'queued');
    expect(await bed.reelhaul.count(['failed', 'queued'])).toEqual({ failed: 2, queued: 2 });
  });
});

describe('a submit that was begun and never concluded', () => {
  test('is unconfirmed to whoever finds it, and not posted again', async () => {
    await setUp();
    const { id } = await bed.enqueue('left behind');
    // What a worker that died between sending and saving leaves in Redis.
    await bed.redis.hset(`${bed.prefix}:g:${id}`, {
      state: 'submitting',
      submitNonce: 'gone',
      submitAttempts: 1,
      submits: JSON.stringify([{ at: Date.now(), bill: 'possible' }]),
    });
    await bed.work();
    expect(await bed.reaches(id, 'unconfirmed')).toMatchObject({ charge: 'possible' });
    expect(totals().submits).toBe(0);
  });

  test('two workers that take the same job post once', async () => {
    await setUp({ environment: { JOB_LOCK_MS: '1000' } });
    const [one] = [await bed.work(), await bed.work()];
    const { id } = await bed.enqueue('twice [sim: submit-delay=4s]');
    await bed.reaches(id, 'submitting');
    // The lock is lost, as on a worker that froze: the job is handed to the other one.
    await bed.redis.del(`${bed.prefix}:submit:${id}:lock`);
    await bed.reaches(id, 'unconfirmed');
    // The first worker still gets its answer, and what it knows counts.
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { submit: 1 } });
    expect(totals()).toMatchObject({ submits: 1, bills: 1 });
    await one.close();
  });
});

describe('an idempotency key', () => {
  test('gives the same generation for the same request, also after it is over', async () => {
    await setUp();
    await bed.work();
    const first = await bed.enqueue('once', { idempotencyKey: 'order-1' });
    const again = await bed.enqueue('once', { idempotencyKey: 'order-1' });
    await bed.reelhaul.waitFor(first.id);
    const late = await bed.enqueue('once', { idempotencyKey: 'order-1' });
    expect([again.id, late.id]).toEqual([first.id, first.id]);
    expect(totals().submits).toBe(1);
  });

  test('with another request is a conflict that stores nothing', async () => {
    await setUp();
    await bed.enqueue('once', { idempotencyKey: 'order-1' });
    await expect(bed.enqueue('other', { idempotencyKey: 'order-1' })).rejects.toMatchObject({
      code: 'idempotency_conflict',
    });
    expect((await bed.reelhaul.list()).generations).toHaveLength(1);
  });

  test('belongs to its tenant', async () => {
    await setUp();
    const a = await bed.enqueue('once', { idempotencyKey: 'order-1', tenant: 'a' });
    const b = await bed.enqueue('other', { idempotencyKey: 'order-1', tenant: 'b' });
    expect(a.id).not.toBe(b.id);
  });

  test('is held without limit while its generation is unfinished, and then for IDEMPOTENCY_TTL_MS', async () => {
    await setUp({ environment: { IDEMPOTENCY_TTL_MS: '60000' } });
    const { id } = await bed.enqueue('once', { idempotencyKey: 'order-1' });
    const key = `${bed.prefix}:idem:7:default:order-1`;
    expect(await bed.redis.pttl(key)).toBe(-1);
    await bed.work();
    await bed.reelhaul.waitFor(id);
    const ttl = await bed.redis.pttl(key);
    expect(ttl).toBeGreaterThan(0);
    expect(ttl).toBeLessThanOrEqual(60_000);
  });

  test('of 200 enqueues at once makes one generation', async () => {
    await setUp();
    const all = await Promise.all(
      Array.from({ length: 200 }, () => bed.enqueue('once', { idempotencyKey: 'order-1' })),
    );
    expect(new Set(all.map(({ id }) => id)).size).toBe(1);
  });
});

test('a request that is refused leaves nothing in Redis', async () => {
  await setUp();
  await expect(
    bed.reelhaul.enqueue({ prompt: '', ratio: 'wide', image: 'ftp://x' }, { priority: -1 }),
  ).rejects.toMatchObject({
    code: 'invalid_input',
    problems: expect.arrayContaining([
      expect.objectContaining({ path: 'request.prompt' }),
      expect.objectContaining({ path: 'request.ratio' }),
      expect.objectContaining({ path: 'request.image' }),
      expect.objectContaining({ path: 'options.priority' }),
    ]),
  });
  const records = await bed.redis.exists(
    `${bed.prefix}:state:queued`,
    `${bed.prefix}:live`,
    `${bed.prefix}:events`,
  );
  expect(records).toBe(0);
});
