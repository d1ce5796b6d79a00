/** What leads to a generation: its tasks, its idempotency key, and the way it came, as the store keeps them. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createStore, type Store } from '../../src/store/store.js';
import { readTrail } from '../../src/generation/history.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

let bed: Testbed;
let store: Store;

beforeAll(async () => {
  bed = await createTestbed();
  const { redis, prefix } = bed;
  store = createStore({ redis, prefix, idempotencyTtlMs: 60_000, now: () => Date.now(), slots: bed.config });
  await bed.work();
});
afterAll(() => bed.close());

const stay = { live: true };

async function queued(): Promise<string> {
  const { id } = await bed.reelhaul.enqueue({ prompt: 'later' }, { delayMs: 3_600_000 });
  return id;
}
const record = async (id: string) => (await store.get(id))!;

test('the trail of a straight way has every state in its order', async () => {
  const { id } = await bed.enqueue('a kite');
  await bed.reaches(id, 'succeeded');
  const { trail, createdAt, finishedAt } = await record(id);
  const steps = readTrail(trail, createdAt);
  expect(steps.map(({ state }) => state)).toEqual(['submitting', 'generating', 'archiving', 'succeeded']);
  expect(steps.map(({ at }) => at)).toEqual(steps.map(({ at }) => at).toSorted((a, b) => a - b));
  expect(steps.at(-1)!.at).toBeGreaterThanOrEqual(finishedAt!);
});

test('what apps see of a generation does not tell of the trail', async () => {
  const { id } = await bed.enqueue('a kite');
  expect(Object.keys(await bed.reaches(id, 'succeeded'))).not.toContain('trail');
});

test('a task leads to its generation, also one that only a callback named, or that stands beside', async () => {
  const id = await queued();
  await store.transition(await record(id), 'submitting', stay);
  await store.amend(await record(id), { set: { hintedTaskId: `${id}-hinted` } });
  await store.transition(await record(id), 'generating', { ...stay, set: { taskId: `${id}-task` } });
  await store.amend(await record(id), { submits: [{ at: 1, bill: 'charged', taskId: `${id}-other` }] });
  for (const task of ['hinted', 'task', 'other']) expect(await store.idOfTask(`${id}-${task}`)).toBe(id);
  expect(await store.idOfTask('nobody’s')).toBeNull();
});

test('a generation that is forgotten takes its tasks along, but not those that are another’s by now', async () => {
  const id = await queued();
  await store.transition(await record(id), 'generating', { ...stay, set: { taskId: `${id}-a` } });
  await store.amend(await record(id), { submits: [{ at: 1, bill: 'charged', taskId: `${id}-b` }] });
  const finishedAt = Date.now();
  await store.transition(await record(id), 'failed', { live: false, set: { finishedAt } });
  await bed.redis.hset(store.keys.tasks, `${id}-b`, 'another');
  expect(await store.prune(Date.now() + 1000, 100)).toBeGreaterThan(0);
  expect(await store.idOfTask(`${id}-a`)).toBeNull();
  expect(await store.idOfTask(`${id}-b`)).toBe('another');
});

test('an idempotency key leads to its generation, within its tenant only', async () => {
  const { id } = await bed.reelhaul.enqueue(
    { prompt: 'once' },
    { tenant: 'a', idempotencyKey: 'order 7', delayMs: 3_600_000 },
  );
  expect(await store.idOfKey('a', 'order 7')).toBe(id);
  expect(await store.idOfKey('b', 'order 7')).toBeNull();
});
