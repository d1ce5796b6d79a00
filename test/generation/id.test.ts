import { expect, test } from '@jest/globals';
import { createIds } from '../../src/generation/id.js';
import { createdAtOf } from '../../src/store/listing.js';

const AT = 1_800_000_000_000;

test('ids tell the time they were given, and sort by creation also within one millisecond', () => {
  let now = AT;
  const newId = createIds(() => now);
  const ids = Array.from({ length: 1000 }, (_, i) => {
    now = AT + Math.floor(i / 100);
    return newId();
  });
  expect(ids).toEqual([...ids].sort());
  expect(new Set(ids).size).toBe(1000);
  expect(ids.map(createdAtOf)).toEqual(ids.map((_, i) => AT + Math.floor(i / 100)));
});

test('a little step back of the clock does not disturb the order, a long one is followed', () => {
  let now = AT;
  const newId = createIds(() => now);
  const first = newId();
  now = AT - 5;
  const second = newId();
  expect(second > first).toBe(true);
  now = AT - 3_600_000;
  expect(createdAtOf(newId())).toBe(now);
});
