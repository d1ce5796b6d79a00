/** Event streams: nothing is missed, also across a reconnect, and nothing of another tenant is told. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { GenerationEvent } from '../../src/store/event-stream.js';
import type { Generation } from '../../src/generation/record.js';
import { startApi, type TestApi } from '../support/api.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const ALL = 'token-of-all-tenants';
const ACME = 'token-of-acme-tenant';

interface Told {
  readonly id: string;
  readonly event: string;
  readonly data: GenerationEvent & Generation;
}

let bed: Testbed;
let api: TestApi;
const open: AbortController[] = [];
beforeEach(async () => {
  bed = await createTestbed();
  api = await startApi(bed, { API_TOKENS: `${ALL},${ACME}:acme` });
});
afterEach(async () => {
  for (const listening of open.splice(0)) listening.abort();
  await api.close();
  await bed.close();
});

/** Listens; what was told so far is in the array. Resolves once the first entry is there. */
async function listen(path: string, token = ALL, headers = {}): Promise<{ told: Told[]; stop(): void }> {
  const ended = new AbortController();
  open.push(ended);
  const response = await api.fetch('GET', path, { token, headers, signal: ended.signal });
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const told: Told[] = [];
  const read = async () => {
    let left = '';
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const parts = (left + chunk).split('\n\n');
      left = parts.pop()!;
      for (const part of parts) {
        const fields = Object.fromEntries(part.split('\n').map((line) => line.split(/: ?(.*)/s).slice(0, 2)));
        told.push({ id: fields['id'], event: fields['event'], data: JSON.parse(fields['data']) });
      }
    }
  };
  read().catch(() => {});
  await until(() => told.length > 0, 'the stream to begin');
  return { told, stop: () => ended.abort() };
}
const moves = (told: readonly Told[]) =>
  told.filter(({ event }) => event === 'state').map(({ data }) => data.to);

test('one generation is told from how it is to its end', async () => {
  const { id } = await bed.enqueue('followed');
  const { told } = await listen(`/v1/generations/${id}/events`);
  expect(told[0]).toMatchObject({ event: 'generation', data: { id, state: 'queued' } });
  await bed.work();
  await until(() => moves(told).includes('succeeded'), 'the end');
  expect(moves(told)).toEqual(['submitting', 'generating', 'archiving', 'succeeded']);
  expect(told.every(({ data }) => (data.generationId ?? data.id) === id)).toBe(true);
});

test('a client that comes back with Last-Event-ID goes on exactly behind it', async () => {
  const { id } = await bed.enqueue('interrupted');
  const first = await listen('/v1/events');
  const next = await bed.enqueue('seen');
  const last = await until(() => first.told.find(({ data }) => data.generationId === next.id), 'an event');
  first.stop();
  await bed.reelhaul.cancel(id);
  await bed.reelhaul.cancel(next.id);
  const { told } = await listen('/v1/events', ALL, { 'last-event-id': last.id });
  await until(() => moves(told).length >= 2, 'what was missed');
  expect(told.slice(1).map(({ data }) => [data.generationId, data.to])).toEqual([
    [id, 'canceled'],
    [next.id, 'canceled'],
  ]);
});

test('a tenant hears of its own only', async () => {
  const { told } = await listen('/v1/events', ACME);
  await bed.enqueue('not theirs');
  const own = await bed.reelhaul.enqueue({ prompt: 'theirs', image }, { tenant: 'acme' });
  await until(() => moves(told).length > 0, 'its own event');
  expect(told.slice(1).map(({ data }) => data.generationId)).toEqual([own.id]);
});

test('an id that is none is refused', async () => {
  const { status, body } = await api.ask('GET', '/v1/events', {
    token: ALL,
    headers: { 'last-event-id': 'nonsense' },
  });
  expect([status, body]).toMatchObject([422, { problems: [{ path: 'Last-Event-ID' }] }]);
});

test('a server that stops ends its streams rather than waiting for them', async () => {
  await listen('/v1/events');
  await api.close();
  await expect(fetch(`${api.url}/healthz`)).rejects.toThrow();
  api = await startApi(bed, { API_TOKENS: ALL });
});
