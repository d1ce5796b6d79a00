/** The list of submits: what it says of bills and tasks, whatever order the news come in. */
import { describe, expect, test } from '@jest/globals';
import {
  chargeOf,
  MAX_SUBMITS,
  otherTasks,
  withAnswer,
  withBill,
  withFurtherTask,
  withoutPost,
  withShown,
  withPost,
  withTask,
} from '../../src/generation/submits.js';
import { withSlots } from '../../src/generation/slots.js';

const AT = 1_000_000;
const SETTINGS = { GENERATION_DEADLINE_MS: 60_000, LATE_CHECK_FOR_MS: 600_000 };
const T1 = { at: AT, taskId: 'T1', price: 5 };
const post = (i: number, price = 5) => ({ at: AT + i, price, nonce: `n${i}` });
const charged = (submits: readonly { bill: string }[]) =>
  submits.filter(({ bill }) => bill === 'charged').length;

test('callbacks of two tasks before the answer that names the second are two tasks and two bills', () => {
  const sent = withPost([], post(0));
  const second = withFurtherTask(sent, 'T2', AT)!;
  const answered = withAnswer(second, 'n0', { ...T1, taskId: 'T2' });
  const both = withFurtherTask(answered, 'T1', AT)!;
  expect(charged(both)).toBe(1);
  expect(charged(withShown(both, 'T1'))).toBe(2);
  expect(otherTasks(both, 'T2')).toEqual(['T1']);
});

test('a callback of an earlier submit while the second is out, which is not accepted, is one task and one bill', () => {
  const resubmitted = withPost(withPost([], post(0)), post(1, 5));
  const settled = withShown(withTask(withoutPost(resubmitted, 'n1'), T1), 'T1');
  expect(settled.map(({ bill, taskId }) => [bill, taskId])).toEqual([
    ['charged', 'T1'],
    ['none', undefined],
  ]);
  expect(chargeOf(settled)).toBe('charged');
});

test('a task that comes for a lost answer belongs to that submit, and makes no bill of its own', () => {
  const resubmitted = withAnswer(withPost(withPost([], post(0)), post(1, 7)), 'n1', {
    ...T1,
    taskId: 'T2',
  });
  const found = withFurtherTask(resubmitted, 'T1', AT)!;
  expect(found).toHaveLength(2);
  expect(found.map(({ price, taskId }) => [price, taskId])).toEqual([
    [5, 'T1'],
    [7, 'T2'],
  ]);
});

test('what surely was not accepted leaves nothing behind, however often it is tried', () => {
  let submits = withPost([], post(0));
  for (let i = 1; i <= 100; i++) submits = withPost(withoutPost(submits, `n${i - 1}`), post(i));
  expect(submits).toHaveLength(1);
  expect(chargeOf(withoutPost(submits, 'n100'))).toBe('none');
});

test('a stream of task ids is bounded', () => {
  let submits = withAnswer(withPost([], post(0)), 'n0', { ...T1, taskId: 'T' });
  for (let i = 0; i < 100; i++) submits = withFurtherTask(submits, `forged ${i}`, AT) ?? submits;
  expect(submits).toHaveLength(MAX_SUBMITS);
});

test('the charge is the gravest of all: a refund of one hides no bill of another', () => {
  const both = withPost(withAnswer(withPost([], post(0)), 'n0', T1), post(1));
  expect(chargeOf(withBill(both, 'T1', 'refunded'))).toBe('possible');
  expect(chargeOf(withBill(withoutPost(both, 'n1'), 'T1', 'refunded'))).toBe('refunded');
});

test('a submit takes one slot until its task has ended, and an earlier one in doubt keeps its own', () => {
  const record = { state: 'queued', acceptedAt: null, deadlineAt: null } as const;
  const slots = (
    submits: ReturnType<typeof withPost>,
    to: Parameters<typeof withSlots>[2]['to'],
    taskId: string | null,
  ) => withSlots(submits, record, { to, taskId, at: AT, taskGone: false, settings: SETTINGS });
  const doubted = slots(withPost([], post(0)), 'submitting', null);
  const second = slots(withPost(doubted, post(1)), 'submitting', null);
  expect(second.map(({ liveUntil }) => liveUntil)).toEqual([AT + 60_000, AT + 60_001]);
  const ended = slots(withAnswer(second, 'n1', { ...T1, taskId: 'T2' }), 'archiving', 'T2');
  expect(ended.map(({ liveUntil }) => liveUntil)).toEqual([AT + 60_000, undefined]);
});

describe('the answer to an earlier POST, while a second is under way', () => {
  const two = withPost(withPost([], post(0)), post(1, 7));
  const told = (submits: ReturnType<typeof withPost>) =>
    submits.map(({ bill, taskId, price, extra }) => [price, bill, taskId, extra === true]);

  test('is that of its own POST, and says nothing of the second', () => {
    expect(told(withAnswer(two, 'n0', T1))).toEqual([
      [5, 'charged', 'T1', false],
      [7, 'possible', undefined, false],
    ]);
    expect(told(withoutPost(two, 'n0'))).toEqual([
      [5, 'none', undefined, false],
      [7, 'possible', undefined, false],
    ]);
  });

  test('corrects what a callback was taken for', () => {
    const guessed = withTask(two, T1);
    expect(told(guessed)[1]).toEqual([7, 'possible', 'T1', false]);
    const answered = withAnswer(guessed, 'n0', T1);
    expect(told(answered)).toEqual([
      [5, 'charged', 'T1', false],
      [7, 'possible', undefined, false],
    ]);
    expect(told(withoutPost(guessed, 'n1'))).toEqual([
      [5, 'possible', 'T1', false],
      [7, 'none', undefined, false],
    ]);
    expect(told(withAnswer(answered, 'n1', { ...T1, taskId: 'T2' }))).toEqual([
      [5, 'charged', 'T1', false],
      [7, 'charged', 'T2', false],
    ]);
  });

  test('drops the bill of its own that its task was given', () => {
    const beside = withFurtherTask(withPost([], post(0)), 'T1', AT + 2)!;
    expect(told(beside)).toHaveLength(2);
    expect(told(withAnswer(beside, 'n0', T1))).toEqual([[5, 'charged', 'T1', false]]);
  });

  test('leaves the task of another gateway beside it, and what was refunded refunded', () => {
    const wrong = withTask(withPost([], post(0)), { ...T1, taskId: 'T9' });
    expect(told(withAnswer(wrong, 'n0', T1))).toEqual([
      [5, 'charged', 'T1', false],
      [5, 'none', 'T9', true],
    ]);
    const refunded = withBill(withTask(two, T1), 'T1', 'refunded');
    expect(told(withAnswer(refunded, 'n0', T1))[0]).toEqual([5, 'refunded', 'T1', false]);
  });
});
