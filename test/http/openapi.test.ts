/** The OpenAPI document is right, and whatever is sent after it, only documented answers come back. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import * as fc from 'fast-check';
import { createOpenApiDocument } from '../../src/http/openapi.js';
import type { Operation } from '../../src/http/operations.js';
import { startApi, type Answer, type TestApi } from '../support/api.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';

const TOKEN = 'token-of-all-tenants';
const document = createOpenApiDocument();
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(
    ([method, operation]) => [operation.operationId, path, method, operation] as const,
  ),
);

let bed: Testbed;
let api: TestApi;
let known: string;
beforeAll(async () => {
  bed = await createTestbed();
  api = await startApi(bed, { API_TOKENS: TOKEN, API_RATE_LIMIT: '0' });
  known = (await bed.enqueue('known')).id;
});
afterAll(async () => {
  await api.close();
  await bed.close();
});

test('an OpenAPI linter finds nothing', async () => {
  const served = await api.ask('GET', '/openapi.json');
  expect(served.body).toEqual(JSON.parse(JSON.stringify(document)));
  const config = await createConfig({ extends: ['recommended'] });
  const found = await lintFromString({ source: served.text, absoluteRef: '/openapi.json', config });
  expect(found.map(({ ruleId, message, location }) => [ruleId, message, location[0]?.pointer])).toEqual([]);
});

test('the linter would find something', async () => {
  const broken = { ...document, paths: { '/x/{id}': { get: { responses: {} } } } };
  const config = await createConfig({ extends: ['recommended'] });
  const source = JSON.stringify(broken);
  const found = await lintFromString({ source, absoluteRef: '/openapi.json', config });
  expect(found.length).toBeGreaterThan(0);
});

test('the page names every operation and loads nothing from elsewhere', async () => {
  const { text, headers, status } = await api.ask('GET', '/docs');
  expect(status).toBe(200);
  for (const [, path, method] of operations) {
    expect(text).toContain(`${method.toUpperCase()}</span> <code>${path}</code>`);
  }
  expect(text).not.toMatch(/<script|src=|https?:\/\//i);
  expect(headers.get('content-security-policy')).toContain("default-src 'none'");
});

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.constantFrom(
    '',
    '..',
    '__proto__',
    'null',
    '0',
    '-1',
    '1e999',
    '%00',
    "' OR 1=1",
    '\u0000',
    '\ud800',
    '/',
  ),
);
const id = () => fc.oneof(fc.constant(known), fc.uuid({ version: 7 }), text);
const junk = fc.jsonValue({ maxDepth: 3 });
const maybe = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 4, arbitrary: value }, { weight: 1, arbitrary: junk });
const request = fc.record(
  {
    prompt: maybe(fc.string()),
    image: maybe(fc.constantFrom(image, 'http://10.0.0.1/')),
    ratio: maybe(fc.constantFrom('16:9', '0:0')),
    options: maybe(fc.record({ seconds: maybe(fc.constantFrom(5, 10)) }, { requiredKeys: [] })),
    surplus: junk,
  },
  { requiredKeys: ['prompt'] },
);
const order = fc.record(
  {
    request: maybe(request),
    tenant: maybe(text),
    idempotencyKey: maybe(text),
    priority: maybe(fc.integer()),
    delayMs: maybe(fc.integer()),
    runAt: junk,
    deadlineMs: maybe(fc.integer()),
    metadata: junk,
    notifyUrl: maybe(fc.webUrl()),
    notifyOn: maybe(fc.constantFrom('end', 'progress')),
  },
  { requiredKeys: ['request'] },
);
/** Right in every field, so that a good part of what is sent gets as far as being stored. */
const rightOrder = fc.record(
  {
    request: fc.record({ prompt: fc.string().map((words) => `a film ${words}`), image: fc.constant(image) }),
    idempotencyKey: fc.constantFrom('one', 'two'),
    metadata: fc.dictionary(fc.string(), junk, { maxKeys: 3 }),
    delayMs: fc.nat({ max: 1000 }),
    notifyUrl: fc.webUrl(),
  },
  { requiredKeys: ['request'] },
);
const bodies: fc.Arbitrary<unknown> = fc.oneof(
  rightOrder,
  rightOrder.map(({ request: bare }) => bare),
  order,
  request,
  fc.record({ items: maybe(fc.array(maybe(order), { maxLength: 4 })) }),
  fc.record({ allowRebill: maybe(fc.boolean()) }),
  fc.constantFrom({ adopt: 'task' }, { resubmit: true }, { giveUp: true }),
  junk,
  // As it is: not always JSON at all.
  text.map((raw) => ({ raw })),
);

interface Sent {
  readonly path: string;
  readonly body: unknown;
  readonly headers: Record<string, string>;
}

const headerSafe = /^[\x20-\x7e]*$/;

function requestsOf(template: string, { parameters, requestBody }: Operation): fc.Arbitrary<Sent> {
  const named = (where: string) =>
    parameters.filter((parameter) => parameter['in'] === where).map((parameter) => String(parameter['name']));
  const values = (names: readonly string[]) =>
    fc.record(Object.fromEntries(names.map((name) => [name, text])), { requiredKeys: [] });
  return fc
    .record({
      id: id(),
      name: fc.oneof(fc.constantFrom('video', 'poster', 'lastFrame'), text),
      query: values([...named('query'), 'unknown']),
      headers: values(named('header')),
      body: requestBody ? bodies : fc.constant(undefined),
    })
    .map(({ id, name, query, headers, body }) => ({
      path: `${template
        .replace('{id}', encodeURIComponent(Buffer.from(id).toString()))
        .replace(
          '{name}',
          encodeURIComponent(Buffer.from(name).toString()),
        )}?${new URLSearchParams(query as Record<string, string>).toString()}`,
      headers: Object.fromEntries(
        Object.entries(headers).filter(([, value]) => headerSafe.test(value!)),
      ) as Record<string, string>,
      body,
    }));
}

const isRaw = (body: unknown): body is { raw: string } =>
  typeof body === 'object' && body !== null && Object.keys(body).join() === 'raw';

async function send(method: string, { path, headers, body }: Sent): Promise<Answer> {
  const ended = new AbortController();
  const payload = isRaw(body) ? body.raw : body;
  const options = {
    token: TOKEN,
    headers,
    signal: ended.signal,
    ...(payload === undefined ? {} : { body: payload }),
  };
  const response = await api.fetch(method.toUpperCase(), path, options);
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    ended.abort();
    return { status: response.status, headers: response.headers, body: null, text: '' };
  }
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text ? JSON.parse(text) : null, text };
}

describe('whatever is sent', () => {
  test.each(operations)('to %s, only what is documented comes back', async (_, path, method, operation) => {
    // A path that is empty or made of dots is another path; that one answers for itself.
    const another = [404, 405];
    await fc.assert(
      fc.asyncProperty(requestsOf(path, operation), async (sent) => {
        const { status, headers, body, text } = await send(method, sent);
        expect([...Object.keys(operation.responses).map(Number), ...another]).toContain(status);
        if (status >= 400) {
          expect(headers.get('content-type')).toContain('application/problem+json');
          expect(body).toMatchObject({ status, code: expect.any(String), detail: expect.any(String) });
        }
        expect(status).not.toBe(500);
        expect(text).not.toMatch(/\bat .*\.[jt]s:\d+|ReplyError|ECONN/);
      }),
      { numRuns: 60, endOnFailure: true },
    );
  });

  test('a generation is enqueued whole or not at all', async () => {
    const before = (await listAll()).length;
    let created = 0;
    await fc.assert(
      fc.asyncProperty(bodies, async (body) => {
        const { status, body: answer } = await send('post', { path: '/v1/generations', headers: {}, body });
        if (status !== 201) return;
        created += 1;
        const { id } = answer as { id: string };
        expect(await bed.redis.exists(`${bed.prefix}:submit:${id}`)).toBe(1);
      }),
      { numRuns: 150, endOnFailure: true, examples: [[{ prompt: 'a paper boat' }]] },
    );
    expect(created).toBeGreaterThan(0);
    const after = await listAll();
    expect(after).toHaveLength(before + created);
  });
});

async function listAll(): Promise<string[]> {
  const ids: string[] = [];
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page = await bed.reelhaul.list({ limit: 500, ...(cursor ? { cursor } : {}) });
    ids.push(...page.generations.map(({ id }) => id));
    cursor = page.cursor;
  }
  return ids;
}
