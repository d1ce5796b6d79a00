/** One busy key leaves room for the others, and a long backlog comes back at the rate at which slots come free. */
import { expect, test } from '@jest/globals';
import { createFairSlots } from '../../src/outbound/fair-slots.js';

const takeAll = (slots: ReturnType<typeof createFairSlots>, ...keys: string[]) => {
  const taken: (() => void)[] = [];
  for (let release = slots.take(keys); release !== null; release = slots.take(keys)) taken.push(release);
  return taken;
};

test('one key alone gets half of the slots, two get a third each, and one is left for the next', () => {
  const slots = createFairSlots(21, () => 0);
  const alone = takeAll(slots, 'a');
  expect(alone.length).toBe(11);
  expect(takeAll(slots, 'b').length).toBe(5);
  for (const release of alone.splice(0, 5)) release();
  expect(takeAll(slots, 'b').length).toBe(3);
  expect(slots.take(['c'])).not.toBeNull();
});

test('each of several keys counts: a busy host holds back every tenant that uses it, and nothing else', () => {
  const slots = createFairSlots(10, () => 0);
  expect(takeAll(slots, 'tenant a', 'host x').length).toBe(5);
  expect(slots.take(['tenant b', 'host x'])).toBeNull();
  expect(slots.take(['tenant b', 'host y'])).not.toBeNull();
});

test('a single slot serves one after the other', () => {
  const slots = createFairSlots(1, () => 0);
  const release = slots.take(['a']);
  expect(slots.take(['b'])).toBeNull();
  release?.();
  expect(slots.take(['b'])).not.toBeNull();
});

test('what is refused comes back one after the other, sooner where slots come free faster', () => {
  let at = 0;
  const slots = createFairSlots(4, () => at);
  const slow = Array.from({ length: 100 }, () => slots.waitMs(['slow']));
  expect(slow).toEqual([...slow].sort((a, b) => a - b));
  expect(slow.at(-1)).toBe(100 * 50);
  for (let turn = 0; turn < 50; turn += 1) {
    const release = slots.take(['fast']);
    at += 2;
    release?.();
  }
  expect(slots.waitMs(['fast'])).toBeLessThan(5);
});
