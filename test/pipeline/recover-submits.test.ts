/**
 * Redis forgot a submit: its record stands where it stood before, in any state from which a POST can follow. The worker
 * that made the POST brings it back.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { withPost } from '../../src/generation/submits.js';
import { limitsOf } from '../../src/limits/settings.js';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { advance, expire, fail } from '../../src/pipeline/advance.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { bringBack } from '../../src/pipeline/recover-submits.js';
import { declareUnconfirmed, giveBack, reject } from '../../src/pipeline/settle-submit.js';
import { createContext, type Context } from '../../workers/context.js';
import { submit } from '../../workers/submit.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

let bed: Testbed;
let hub: Hub;
let context: Context;
beforeAll(async () => {
  bed = await createTestbed({ environment: { UNCONFIRMED_WAIT_MS: '60000', PRICES: '{"*":1}' } });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  await hub.limits.publish(limitsOf(bed.config));
  context = await createContext(hub);
});
afterAll(async () => {
  context.ledger.close();
  await hub.queues.close();
  await bed.close();
});

const record = async (id: string) => (await hub.store.get(id))!;
const none = { at: 0, call: 'submit', httpStatus: 400, requestId: null, body: '', error: null } as const;

async function begin(id: string): Promise<void> {
  const queued = await record(id);
  await hub.store.transition(queued, 'submitting', {
    live: true,
    set: { submitNonce: 'earlier', submittedAt: Date.now() },
    submits: withPost(queued.submits, { at: Date.now(), price: 1_000_000, nonce: 'earlier' }),
    count: ['submitAttempts'],
  });
}

/** What Redis went back to: the state, and the bills of before. */
const BEFORE: Record<string, (id: string) => Promise<unknown>> = {
  queued: async () => {},
  'queued again': async (id) => {
    await begin(id);
    await giveBack(hub, { id, submitNonce: 'earlier' }, none);
  },
  submitting: begin,
  unconfirmed: async (id) => {
    await begin(id);
    await declareUnconfirmed(hub, await record(id), null, 'lost');
  },
  'failed: rejected': async (id) => {
    await begin(id);
    await reject(
      hub,
      { id, submitNonce: 'earlier' },
      { kind: 'rejected', code: '', message: 'no', forbidden: false, answer: none },
    );
  },
  'failed: given up': async (id) => {
    await BEFORE['unconfirmed']!(id);
    await bed.reelhaul.decide(id, { giveUp: true });
  },
  generating: async (id) => {
    await begin(id);
    await adoptTask(hub, id, `${id}-earlier`, { source: 'submit', post: 'earlier' });
  },
  'failed: task failed': async (id) => {
    await BEFORE['generating']!(id);
    await fail(hub, await record(id), { code: 'task_failed', message: 'no', stage: 'poll', retryable: true });
  },
  expired: async (id) => {
    await BEFORE['generating']!(id);
    await expire(hub, await record(id));
  },
  archiving: async (id) => {
    await BEFORE['generating']!(id);
    await advance(hub, await record(id), 'archiving');
  },
  canceled: async (id) => {
    await begin(id);
    await bed.reelhaul.cancel(id);
  },
};

async function forgotten(before: string) {
  const { id } = await bed.enqueue(before);
  await BEFORE[before]!(id);
  const stood = await record(id);
  const post = {
    generationId: id,
    nonce: 'forgotten',
    attempt: stood.attempts.submit + 1,
    sentAt: Date.now(),
  };
  return { id, stood, post };
}

test.each(Object.keys(BEFORE))('%s: a POST whose answer is not known is unconfirmed', async (before) => {
  const { id, stood, post } = await forgotten(before);
  await bringBack(hub, [{ ...post, taskId: null }]);
  await submit(context, id, new AbortController().signal);
  const now = await record(id);
  expect(now).toMatchObject({ state: 'unconfirmed', taskId: null, attempts: { submit: post.attempt } });
  expect(now.submits.at(-1)).toMatchObject({ bill: 'possible', at: post.sentAt });
  expect(now.otherTaskIds).toEqual(stood.taskId === null ? [] : [stood.taskId]);
  expect(bed.simulator.ledger().totals.submits).toBe(0);
});

test.each(Object.keys(BEFORE))('%s: the task of an accepted POST is followed', async (before) => {
  const { id, post } = await forgotten(before);
  await bringBack(hub, [{ ...post, taskId: `${id}-task` }]);
  const now = await record(id);
  expect(now).toMatchObject({ state: 'generating', taskId: `${id}-task`, charge: 'charged' });
  expect(now.submits.at(-1)).toMatchObject({ bill: 'charged', taskId: `${id}-task`, at: post.sentAt });
});

test.each(Object.keys(BEFORE))('%s: a POST that surely was not accepted leaves nothing', async (before) => {
  const { id, stood, post } = await forgotten(before);
  await bringBack(hub, [{ ...post, taskId: false }]);
  expect(await record(id)).toEqual(stood);
});

test('what surely was not accepted is queued again when Redis went back to where that was not known', async () => {
  const { id } = await bed.enqueue('429, then forgotten');
  await begin(id);
  const post = { generationId: id, nonce: 'earlier', attempt: 1, sentAt: Date.now() };
  await bringBack(hub, [{ ...post, taskId: false }]);
  expect(await record(id)).toMatchObject({ state: 'queued', charge: 'none' });
});

test('a task that Redis forgot alone is followed again, once, however often it is brought back', async () => {
  const { id } = await bed.enqueue('answer forgotten');
  await begin(id);
  const post = { generationId: id, nonce: 'earlier', attempt: 1, sentAt: Date.now(), taskId: `${id}-task` };
  await bringBack(hub, [post]);
  await bringBack(hub, [post]);
  const { submits, ...now } = await record(id);
  expect(now).toMatchObject({ state: 'generating', taskId: `${id}-task`, otherTaskIds: [] });
  expect(submits).toHaveLength(1);
});
