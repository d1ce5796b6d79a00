/** Nobody waits longer than what stopped them: freed slots, a provider that is back, a key that is well again. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import type { CallResult } from '../../src/limits/gate.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;

/** Far longer than a test: who waits for the next probe waits in vain. */
const NEVER_AGAIN = '3600000';

beforeEach(async () => {
  bed = await createTestbed({
    environment: { BREAKER_PROBE_MS: NEVER_AGAIN, REFUSED_PROBE_MS: NEVER_AGAIN, BREAKER_FAILURES: '1' },
  });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
});
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

/** What another process told the gate of its submit. */
const told = (result: CallResult, generationId = 'another') =>
  hub.gate.report('submit', { generationId, probe: false, leftAgoMs: 0, result });
const enqueueMany = async (count: number) =>
  Promise.all(Array.from({ length: count }, async (_, i) => (await bed.enqueue(`waits ${i}`)).id));
const ends = (ids: readonly string[]) =>
  Promise.all(ids.map(async (id) => (await bed.reelhaul.waitFor(id)).state));

describe('a probe that finds all well again', () => {
  test('closes the breaker, though its process never saw a failure, and nobody waits for another probe', async () => {
    // Another process saw the provider fail, and was stopped.
    await told({ kind: 'away' });
    await bed.redis.hset(`${bed.prefix}:gate:submit`, { probes: 20, awayProbeAt: Date.now() + 500 });
    const ids = await enqueueMany(12);
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect((await bed.reelhaul.limits()).breaker.submit.openAt).toBeNull();
  });

  test.each([
    ['says 429', 'submit=429, retry-after=0', 'succeeded'],
    ['forbids it', 'submit=403', 'queued'],
  ] as const)('closes the breaker also when the provider %s', async (_, script, state) => {
    for (const other of ['one', 'two']) await told({ kind: 'forbidden' }, other);
    await told({ kind: 'away' });
    await bed.redis.hset(`${bed.prefix}:gate:submit`, { probes: 20, awayProbeAt: Date.now() });
    const { id } = await bed.enqueue(`looks [sim: ${script}]`);
    await bed.work();
    await until(
      async () => (await bed.reelhaul.limits()).breaker.submit.openAt === null,
      'the breaker to close',
    );
    await bed.reaches(id, state);
  });

  test('ends the refusal, and nobody waits for another probe', async () => {
    await told({ kind: 'refused', reason: 'key' });
    await bed.redis.hset(`${bed.prefix}:gate:submit`, 'probeAt', Date.now() + 500);
    const ids = await enqueueMany(12);
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect((await bed.reelhaul.limits()).refused).toBe(false);
  });
});
