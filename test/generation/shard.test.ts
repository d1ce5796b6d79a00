import { expect, test } from '@jest/globals';
import { assert, integer, nat, property } from 'fast-check';
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid';
import {
  idInShard,
  MOST_SHARDS,
  shardOf,
  shardOfKey,
  shardPrefix,
  shareOfAmount,
  shareOfCount,
} from '../../src/generation/shard.js';

const shards = integer({ min: 1, max: MOST_SHARDS });

test('an id that is moved into a shard is in that shard, and still an id of the same instant', () => {
  assert(
    property(shards, nat(), (count, n) => {
      const id = uuidv7();
      const moved = idInShard(id, n % count, count);
      expect(shardOf(moved, count)).toBe(n % count);
      expect(moved.slice(0, -2)).toBe(id.slice(0, -2));
      expect(moved).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    }),
  );
});

test.each([2, 3, 4, 16])('ids and idempotency keys are spread evenly over %i shards', (count) => {
  const each = 4000 / count;
  const counts = (place: (n: number) => number) => {
    const found = Array.from({ length: count }, () => 0);
    for (let n = 0; n < 4000; n++) found[place(n)]! += 1;
    return found;
  };
  for (const found of [
    counts(() => shardOf(uuidv7(), count)),
    counts((n) => shardOfKey('default', `order-${n}`, count)),
    counts(() => shardOfKey('acme', uuidv4(), count)),
  ])
    for (const n of found) expect(Math.abs(n - each)).toBeLessThan(6 * Math.sqrt(each));
});

test('tags of shards lie in their own part of the slots of a Cluster, and one shard changes nothing', () => {
  expect(shardPrefix('{reelhaul}', 0, 1)).toBe('{reelhaul}');
  const four = [0, 1, 2, 3].map((shard) => shardPrefix('app:{reels}:x', shard, 4));
  expect(new Set(four).size).toBe(4);
  for (const [shard, prefix] of four.entries())
    expect(prefix).toMatch(new RegExp(`^app:\\{reels:${shard}[.\\d]*\\}:x$`));
});

test('the shares of a cap are together exactly the cap, those of a budget never more than it', () => {
  assert(
    property(shards, integer({ min: 0, max: 10_000 }), (count, cap) => {
      const parts = Array.from({ length: count }, (_, shard) => shareOfCount(cap, shard, count));
      expect(parts.reduce((sum, part) => sum + part, 0)).toBe(cap);
      expect(Math.max(...parts) - Math.min(...parts)).toBeLessThanOrEqual(1);
      const amount = cap / 100;
      expect(Math.round(shareOfAmount(amount, count) * 1e6) * count).toBeLessThanOrEqual(
        Math.round(amount * 1e6),
      );
    }),
  );
});

test('where everything lies never changes: another place would lose generations, and buy keys again', () => {
  const keys = ['order-1', 'order-2', 'order-3', 'größe', ''].map((key) => shardOfKey('acme', key, 16));
  expect(keys).toEqual([6, 15, 12, 10, 6]);
  const prefixes = [2, 3, 4].flatMap((count) =>
    Array.from({ length: count }, (_, shard) => shardPrefix('{reelhaul}', shard, count)),
  );
  expect(prefixes).toEqual([
    ...['{reelhaul:0.3}', '{reelhaul:1.11}'],
    ...['{reelhaul:0.42}', '{reelhaul:1.14}', '{reelhaul:2.43}'],
    ...['{reelhaul:0}', '{reelhaul:1}', '{reelhaul:2}', '{reelhaul:3}'],
  ]);
});
