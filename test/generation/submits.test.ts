/** The list of submits: what it says of bills and tasks, whatever order the news come in. */
import { expect, test } from '@jest/globals';
import {
  chargeOf,
  MAX_SUBMITS,
  otherTasks,
  withBill,
  withFurtherTask,
  withoutPost,
  withPost,
  withSlots,
  withTask,
} from '../../src/generation/submits.js';

const AT = 1_000_000;
const SETTINGS = { GENERATION_DEADLINE_MS: 60_000, LATE_CHECK_FOR_MS: 600_000 };
const answer = { at: AT, price: 5, answered: true };
const callback = { at: AT, price: 5, answered: false };
const charged = (submits: readonly { bill: string }[]) =>
  submits.filter(({ bill }) => bill === 'charged').length;

test('callbacks of two tasks before the answer that names the second are two tasks and two bills', () => {
  const sent = withPost([], AT, 5);
  const second = withFurtherTask(sent, 'T2', AT)!;
  const answered = withTask(second, 'T2', answer);
  const both = withFurtherTask(answered, 'T1', AT)!;
  expect(charged(both)).toBe(2);
  expect(otherTasks(both, 'T2')).toEqual(['T1']);
});

test('a callback of an earlier submit while the second is out, which is not accepted, is one task and one bill', () => {
  const resubmitted = withPost(withPost([], AT, 5), AT + 1, 5);
  const settled = withTask(withoutPost(resubmitted), 'T1', callback);
  expect(settled.map(({ bill, taskId }) => [bill, taskId])).toEqual([
    ['charged', 'T1'],
    ['none', undefined],
  ]);
  expect(chargeOf(settled)).toBe('charged');
});

test('a task that comes for a lost answer belongs to that submit, and makes no bill of its own', () => {
  const resubmitted = withTask(withPost(withPost([], AT, 5), AT + 1, 7), 'T2', answer);
  const found = withFurtherTask(resubmitted, 'T1', AT)!;
  expect(found).toHaveLength(2);
  expect(found.map(({ price, taskId }) => [price, taskId])).toEqual([
    [5, 'T1'],
    [7, 'T2'],
  ]);
});

test('what surely was not accepted leaves nothing behind, however often it is tried', () => {
  let submits = withPost([], AT, 5);
  for (let i = 0; i < 100; i++) submits = withPost(withoutPost(submits), AT + i, 5);
  expect(submits).toHaveLength(1);
  expect(chargeOf(withoutPost(submits))).toBe('none');
});

test('a stream of task ids is bounded', () => {
  let submits = withTask(withPost([], AT, 5), 'T', answer);
  for (let i = 0; i < 100; i++) submits = withFurtherTask(submits, `forged ${i}`, AT) ?? submits;
  expect(submits).toHaveLength(MAX_SUBMITS);
});

test('the charge is the gravest of all: a refund of one hides no bill of another', () => {
  const both = withPost(withTask(withPost([], AT, 5), 'T1', answer), AT + 1, 5);
  expect(chargeOf(withBill(both, 'T1', 'refunded'))).toBe('possible');
  expect(chargeOf(withBill(withoutPost(both), 'T1', 'refunded'))).toBe('refunded');
});

test('a submit takes one slot until its task has ended, and an earlier one in doubt keeps its own', () => {
  const record = { state: 'queued', acceptedAt: null, deadlineAt: null } as const;
  const slots = (
    submits: ReturnType<typeof withPost>,
    to: Parameters<typeof withSlots>[2]['to'],
    taskId: string | null,
  ) => withSlots(submits, record, { to, taskId, at: AT, taskGone: false, settings: SETTINGS });
  const doubted = slots(withPost([], AT, 5), 'submitting', null);
  const second = slots(withPost(doubted, AT + 1, 5), 'submitting', null);
  expect(second.map(({ liveUntil }) => liveUntil)).toEqual([AT + 60_000, AT + 60_001]);
  const ended = slots(withTask(second, 'T2', answer), 'archiving', 'T2');
  expect(ended.map(({ liveUntil }) => liveUntil)).toEqual([AT + 60_000, undefined]);
});
