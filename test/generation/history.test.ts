import { expect, test } from '@jest/globals';
import { STATES, type State } from '../../src/generation/states.js';
import { readTrail, since, withStep } from '../../src/generation/history.js';

const walk = (steps: readonly { state: State; at: number }[], createdAt = 1000) =>
  steps.reduce((trail, step) => withStep(trail, createdAt, step), '');

test('every state is read back at the instant it was written', () => {
  const steps = STATES.map((state, i) => ({ state, at: 1000 + 7 * i }));
  expect(readTrail(walk(steps), 1000)).toEqual(steps);
});

test('the last step says since when a generation is where it is; without any, its creation', () => {
  expect(since('', 1000)).toBe(1000);
  expect(since(walk([{ state: 'submitting', at: 1500 }]), 1000)).toBe(1500);
});

test('of a very long way the first steps are forgotten, and none is cut in half', () => {
  const steps = Array.from({ length: 500 }, (_, i) => ({
    state: i % 2 === 0 ? ('submitting' as const) : ('queued' as const),
    at: 1000 + i * 60_000,
  }));
  const trail = walk(steps);
  const kept = readTrail(trail, 1000);
  expect(trail.length).toBeLessThanOrEqual(600);
  expect(kept).toEqual(steps.slice(-kept.length));
  expect(kept.length).toBeGreaterThan(40);
});

test('a clock that went backwards gives no step before the creation', () => {
  expect(readTrail(walk([{ state: 'submitting', at: 400 }]), 1000)).toEqual([
    { state: 'submitting', at: 1000 },
  ]);
});

test('what is no step is skipped', () => {
  expect(readTrail('z5 s s-3 g12', 0)).toEqual([{ state: 'generating', at: 12 }]);
});
