/** The real client against the simulator: both were written from the same notes, and must agree. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createProvider, type Provider } from '../../src/provider/client.js';
import { requestSchema } from '../../src/generation/request.js';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.js';
import { CALLBACK_URL, taskUnder } from './visitor.js';

let simulator: Simulator;
let provider: Provider;
beforeEach(async () => {
  simulator = await startSimulator();
  provider = createProvider({
    baseUrl: simulator.url,
    apiKey: 'sk-right',
    version: '2024-11-06',
    submitTimeoutMs: 500,
    pollTimeoutMs: 500,
    submit5xxPolicy: 'unconfirmed',
    submitNotAcceptedCodes: ['model_not_found'],
    now: Date.now,
  });
});
afterEach(async () => {
  provider.close();
  await simulator.close();
});

test.each([
  ['submit=ok', 'accepted'],
  ['submit=double', 'accepted'],
  ['submit=with-id', 'accepted'],
  ['submit=with-id:200', 'accepted'],
  ['submit-shape=data-id, id=number', 'accepted'],
  ['submit-shape=task, code=0', 'accepted'],
  ['submit-shape=string, code=success', 'accepted'],
  ['submit-shape=top-task-id', 'accepted'],
  ['submit-shape=top-id', 'accepted'],
  ['submit=reset-before', 'unconfirmed'],
  ['submit=reset-after', 'unconfirmed'],
  ['submit=hang-after', 'unconfirmed'],
  ['submit=drip-after:5s', 'unconfirmed'],
  ['submit=endless-after', 'unconfirmed'],
  ['submit-delay=5s', 'unconfirmed'],
  ['submit=truncated-after', 'unconfirmed'],
  ['submit=empty-after', 'unconfirmed'],
  ['submit=empty-after:202', 'unconfirmed'],
  ['submit=empty-after:204', 'unconfirmed'],
  ['submit=no-id-after', 'unconfirmed'],
  ['submit=garbage-after', 'unconfirmed'],
  ['submit=html-after', 'unconfirmed'],
  ['submit=408', 'unconfirmed'],
  ['submit=409-after', 'unconfirmed'],
  ['submit=500', 'unconfirmed'],
  ['submit=502-after', 'unconfirmed'],
  ['submit=504-after', 'unconfirmed'],
  ['submit=524-after', 'unconfirmed'],
  ['submit=429, retry-after=2s', 'notAccepted'],
  ['submit=rate-in-200', 'notAccepted'],
  ['submit=rejected', 'rejected'],
  ['submit=error-in-200', 'rejected'],
  ['submit=error-in-200:none', 'rejected'],
  ['submit=invalid-request', 'rejected'],
  ['submit=400', 'rejected'],
  ['submit=403', 'rejected'],
  ['submit=redirect', 'misrouted'],
  ['submit=html-before:404', 'misrouted'],
  ['submit=html-before:403', 'misrouted'],
  ['submit=flat:403', 'misrouted'],
  ['submit=405', 'misrouted'],
  ['submit=101', 'unconfirmed'],
  ['submit=error:503:model_not_found', 'notAccepted'],
  ['submit=flat:403:insufficient_user_quota', 'refused'],
  ['submit=error:400:pre_consume_token_quota_failed', 'refused'],
  ['submit=401', 'refused'],
  ['submit=402', 'refused'],
  ['submit=quota', 'refused'],
  ['submit=quota:200', 'refused'],
])('%s is %s', async (script, kind) => {
  const request = requestSchema.parse({ prompt: `a fox [sim: ${script}]` });
  const outcome = await provider.submit(request, { callbackUrl: CALLBACK_URL });
  expect(outcome.kind).toBe(kind);
  const taskIds = simulator.ledger().submits[0]?.taskIds ?? [];
  if (outcome.kind === 'accepted') expect(taskIds).toContain(outcome.taskId);
  else if (kind !== 'unconfirmed') expect(taskIds).toEqual([]);
  expect(simulator.ledger().submits[0]?.runwayVersion).toBe('2024-11-06');
});

test('a base address with a path in it misroutes submits', async () => {
  const lost = createProvider({
    baseUrl: `${simulator.url}/v1`,
    apiKey: 'sk-right',
    version: '2024-11-06',
    submitTimeoutMs: 500,
    pollTimeoutMs: 500,
    submit5xxPolicy: 'unconfirmed',
    now: Date.now,
  });
  const request = requestSchema.parse({ prompt: 'a fox' });
  expect(await lost.submit(request, { callbackUrl: CALLBACK_URL })).toMatchObject({ kind: 'misrouted' });
  lost.close();
});

const successes = [
  ...['W', 'B', 'O', 'C'].map((shape) => `shape=${shape}`),
  ...[
    'video_url',
    'raw_video_url',
    'result_url',
    'output',
    'data.output',
    'data.video_url',
    'data.video.url',
    'url',
  ].map((place) => `url-in=${place}`),
  'url-in=fail_reason, shape=B',
  'url-form=list, shape=O',
  'outer=failed',
  'outer=pending',
  'succeeded-word=none',
  'progress=none, times=iso, id=number, code="200"',
  'poll=drip:60ms',
];

test.each([
  ...successes.map((script) => [script, 'succeeded']),
  ['no-url=1', 'succeededWithoutUrl'],
  ['video=missing', 'succeededWithoutUrl'],
  ['result=failed:SAFETY.INPUT.TEXT', 'failed'],
  ['result=failed, error-in=none, shape=O', 'failed'],
  ['result=failed, error-in=result_url, shape=B', 'failed'],
  ['stuck=forever', 'pending'],
  ['succeeded-word=SPLENDID, shape=B', 'pending'],
  ['outer=pending, result=failed', 'pending'],
  ['visible-after=never', 'notVisible'],
  ['visible-after=never, not-visible-status=200', 'notVisible'],
  ['poll=not-visible', 'notVisible'],
  ['poll=429', 'unavailable'],
  ['poll=500', 'unavailable'],
  ['poll=404', 'unavailable'],
  ['poll=garbage', 'unavailable'],
  ['poll=empty', 'unavailable'],
  ['poll=truncated', 'unavailable'],
  ['poll=reset', 'unavailable'],
  ['poll=hang', 'unavailable'],
  ['poll=101', 'unavailable'],
  ['poll=endless', 'unavailable'],
  ['poll=drip:5s', 'unavailable'],
  ['poll=business', 'unavailable'],
  ['poll=401', 'misconfigured'],
  ['poll=403', 'misconfigured'],
  ['poll=html', 'misconfigured'],
  ['poll=redirect', 'misconfigured'],
])('%s is %s', async (script, kind) => {
  const outcome = await provider.poll(await taskUnder(simulator, script));
  expect(outcome.kind).toBe(kind);
  if (outcome.kind === 'succeeded') expect(outcome.videoUrl).toContain('/video.mp4?link=1');
});
