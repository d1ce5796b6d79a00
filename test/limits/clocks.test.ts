/** The clock of Redis jumps back: what was noted in what is now the future stops nobody for as long as that. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;
const never = new AbortController().signal;
const HOUR_MS = 3_600_000;

beforeEach(async () => {
  bed = await createTestbed({ environment: { BREAKER_PROBE_MS: '5000', PROVIDER_RATE_MAX: '600' } });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
});
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

test('the next probe of polls is no further away than probes are apart', async () => {
  await hub.breaker.failed('poll');
  await bed.redis.hset(`${bed.prefix}:breaker:poll`, { openAt: 1, probes: 3, probeAt: Date.now() + HOUR_MS });
  expect(await hub.breaker.pass('poll')).toEqual({ waitMs: 0, probe: true });
  expect((await hub.breaker.pass('poll')).waitMs).toBeGreaterThan(0);
});

test('the next call is due, without the burst that a long rest would allow', async () => {
  await bed.redis.hset(`${bed.prefix}:rate`, { tat: Date.now() + HOUR_MS, passed: 0 });
  expect(await hub.rate.take('poll', never)).not.toBe('stopped');
  const tat = Number(await bed.redis.hget(`${bed.prefix}:rate`, 'tat'));
  expect(tat).toBeLessThan(Date.now() + 60_000);
  expect(tat).toBeGreaterThan(Date.now());
});

test('a pace that a 429 taught is left as soon as ever', async () => {
  await hub.rate.slowDown(0, 0);
  const ahead = Date.now() + HOUR_MS;
  await bed.redis.hset(`${bed.prefix}:rate`, { paceAt: ahead, slowedAt: ahead });
  await until(async () => (await hub.rate.slowedTo()) === null, 'the usual pace');
});

test('who waited before the jump, and is gone, keeps the others from no call', async () => {
  await bed.redis.hset(`${bed.prefix}:rate`, { firstUntil: Date.now() + HOUR_MS });
  expect(await hub.rate.take('submit', never)).not.toBe('stopped');
});
