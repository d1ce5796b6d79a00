/** What the overview says at its top when something is wrong: whoever is called at night looks there first. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openStage, OPERATOR, visit, type Stage } from '../../support/dashboard.js';
import { until } from '../../support/until.js';

let stage: Stage;
let alarms: () => Promise<string>;
beforeEach(async () => {
  stage = await openStage({ environment: { SWEEP_INTERVAL_MS: '100' } });
  const operator = await visit(stage.api, OPERATOR);
  alarms = async () => {
    const { text } = await operator.get('/dashboard');
    return /<section id="alarms"[^]*?<\/section>/.exec(text)![0].replaceAll(/\s+/g, ' ');
  };
});
afterEach(() => stage.close());

test('a 429 that slows all calls down is told, with the pace', async () => {
  await stage.bed.work();
  await stage.bed.enqueue('too fast [sim: submit=429*forever]');
  const told = await until(async () => {
    const text = await alarms();
    return text.includes('429') ? text : null;
  }, 'the notice');
  expect(told).toMatch(/The provider answered 429: calls are slowed down to \d+\.\d a second\./);
});

test('workers that are gone are missed as soon as several sweeps are, and only while something is under way', async () => {
  const workers = await stage.bed.work();
  const sweptOnce = async () => (await stage.bed.redis.get(`${stage.bed.prefix}:swept`)) !== null;
  await until(sweptOnce, 'the first sweep');
  const quiet = async () => !(await alarms()).includes('notice');
  await until(quiet, 'all to be well, to whoever looks');
  await workers.close();
  const silent = async () =>
    Date.now() - Number(await stage.bed.redis.get(`${stage.bed.prefix}:swept`)) > 600;
  await until(silent, 'more than five intervals without a sweep');
  expect(await quiet()).toBe(true);
  await stage.bed.enqueue('left alone', { delayMs: 3_600_000 });
  const told = await until(async () => {
    const text = await alarms();
    return text.includes('No worker has swept for') ? text : null;
  }, 'the alarm');
  expect(told).toContain('1 generations are under way: is a worker running?');
});
