/** Any bytes whatever end in one of the outcomes: through the classifiers, and through the real client and a socket. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import type net from 'node:net';
import * as fc from 'fast-check';
import type { FailureReason } from '../../src/provider/answer.js';
import type { Provider } from '../../src/provider/client.js';
import type { PollOutcome, SubmitOutcome } from '../../src/provider/outcomes.js';
import { answered, API_KEY, broken, pollOf, submitOf } from './exchanges.js';
import { afterRequest, CALLBACK_URL, provider, REQUEST, serveSocket, stopAll } from './servers.js';

const SUBMIT_KINDS = ['accepted', 'notAccepted', 'rejected', 'refused', 'misrouted', 'unconfirmed'];
const POLL_KINDS = [
  'notVisible',
  'pending',
  'succeeded',
  'succeededWithoutUrl',
  'failed',
  'unavailable',
  'misconfigured',
];

function expectSubmit(outcome: SubmitOutcome): void {
  expect(SUBMIT_KINDS).toContain(outcome.kind);
  expect(outcome.answer.body.length).toBeLessThanOrEqual(2048);
  // A task id is kept as it came, or it would not be one.
  expect(JSON.stringify({ ...outcome, taskId: null })).not.toContain(API_KEY);
  if (outcome.kind === 'accepted') expect(outcome.taskId).toMatch(/^[^\p{C}\p{Z}]{1,256}$/u);
}

function expectPoll(outcome: PollOutcome): void {
  expect(POLL_KINDS).toContain(outcome.kind);
  expect(outcome.answer.body.length).toBeLessThanOrEqual(2048);
  // So are the addresses of the video and its pictures.
  const urls = { videoUrl: null, posterUrl: null, lastFrameUrl: null };
  expect(JSON.stringify({ ...outcome, ...urls })).not.toContain(API_KEY);
  if (outcome.kind === 'succeeded') expect(outcome.videoUrl).toMatch(/^https?:\/\//i);
  if (outcome.kind === 'pending' && outcome.progress !== null) {
    expect(outcome.progress >= 0 && outcome.progress <= 100).toBe(true);
  }
}

const FOLDER = new URL('./fixtures/', import.meta.url);
const documented = readdirSync(FOLDER).map((file) => {
  const { body } = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as { body: unknown };
  return typeof body === 'string' ? body : JSON.stringify(body);
});

const KEYS =
  'code message msg error data task_id id status state progress output video video_url raw_video_url result_url url \
fail_reason failure failureCode poster last_frame point refund __proto__ constructor toString length'.split(
    ' ',
  );
const WORDS = [
  '',
  '0',
  '200',
  'success',
  'FAILED',
  'SUCCESS',
  '3',
  'task_not_exist',
  'quota_not_enough',
  'https://a.example/b',
  API_KEY,
];

/** JSON made of the provider's own words in every place and type they may drift to. */
const drifting = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom<unknown>(...WORDS, null, true, 0, 1, -1, 0.5, 200, 429, 2 ** 60, {}, []),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...KEYS), tie('value'), { maxKeys: 6 }),
  ),
})).value;

/** A documented body with some of it cut, doubled or overwritten. */
const mutated = fc
  .tuple(
    fc.constantFrom(...documented),
    fc.array(fc.tuple(fc.nat(), fc.nat(12), fc.string({ maxLength: 6 })), { minLength: 1, maxLength: 4 }),
  )
  .map(([body, edits]) =>
    edits.reduce((text, [at, length, instead]) => {
      const start = text.length === 0 ? 0 : at % text.length;
      return text.slice(0, start) + instead + text.slice(start + length);
    }, body),
  );

const anyBody = fc.oneof(
  drifting.map((value) => JSON.stringify(value)),
  mutated,
  fc.json(),
  fc.string(),
);
const anyStatus = fc.oneof(
  fc.constantFrom(200, 201, 204, 302, 400, 401, 403, 429, 500, 503, 504),
  fc.integer({ min: 0, max: 1000 }),
);
const anyHeaders = fc.dictionary(
  fc.constantFrom('content-type', 'retry-after', 'x-oneapi-request-id'),
  fc.oneof(fc.string(), fc.constantFrom('text/html', '-1', API_KEY)),
);

describe('the classifiers', () => {
  test('give one of the outcomes for any status, headers and body', () => {
    fc.assert(
      fc.property(anyStatus, anyHeaders, anyBody, (status, headers, body) => {
        const exchange = answered(status, body, headers);
        expectSubmit(submitOf(exchange));
        expectSubmit(submitOf(exchange, 'retry'));
        expectPoll(pollOf(exchange, 'd3f0b6b4'));
      }),
      { numRuns: 3000 },
    );
  });

  test('give one of the outcomes for any answer that broke off, and no poll fails a task by it', () => {
    const reasons: FailureReason[] = [
      'connect',
      'aborted',
      'timeout',
      'connectionLost',
      'tooLarge',
      'internal',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...reasons),
        fc.option(anyStatus),
        anyBody,
        fc.boolean(),
        (reason, httpStatus, body, sent) => {
          const exchange = broken(reason, { httpStatus, body, sent: sent || httpStatus !== null });
          const outcome = submitOf(exchange);
          expectSubmit(outcome);
          if (httpStatus === null) expect(outcome.kind).toBe(sent ? 'unconfirmed' : 'notAccepted');
          expect(['unavailable', 'misconfigured']).toContain(pollOf(exchange).kind);
        },
      ),
      { numRuns: 1000 },
    );
  });

  test('never call a 2xx or another 5xx than 500 and 503 not taken unless its own code says so', () => {
    fc.assert(
      fc.property(fc.constantFrom(200, 201, 202, 502, 504, 520, 524), anyBody, (status, body) => {
        const { kind } = submitOf(answered(status, body), 'retry');
        const speaks = /"code"|"error"/.test(body);
        if (!speaks) expect(['accepted', 'unconfirmed']).toContain(kind);
      }),
      { numRuns: 2000 },
    );
  });

  test('never fail a task unless the HTTP status is 2xx', () => {
    fc.assert(
      fc.property(anyStatus, anyBody, (status, body) => {
        fc.pre(status < 200 || status > 299);
        expect(['notVisible', 'unavailable', 'misconfigured']).toContain(pollOf(answered(status, body)).kind);
      }),
      { numRuns: 1000 },
    );
  });

  test('survive deep nesting, long keys and great numbers', () => {
    for (const body of [
      '['.repeat(200_000),
      `${'{"data":'.repeat(50_000)}1${'}'.repeat(50_000)}`,
      `{"${'k'.repeat(500_000)}":1}`,
      `{"task_id":${'9'.repeat(500_000)}}`,
      `{"task_id":1e999,"status":-1e999}`,
      `{"s":"${'\\"'.repeat(200_000)}","task_id":12345678901234567890}`,
    ]) {
      expectSubmit(submitOf(answered(200, body)));
      expectPoll(pollOf(answered(200, body)));
    }
  });
});

describe('the client', () => {
  let caller: Provider;
  let next: ((socket: net.Socket) => void) | undefined;
  beforeAll(async () => {
    const baseUrl = await serveSocket((socket) => afterRequest(socket, () => next?.(socket)));
    caller = provider(baseUrl, { submitTimeoutMs: 1000, pollTimeoutMs: 1000 });
  });
  afterAll(stopAll);

  async function bothCalls(answer: (socket: net.Socket) => void): Promise<void> {
    next = answer;
    expectSubmit(await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL }));
    expectPoll(await caller.poll('d3f0b6b4'));
  }

  test('gives one of the outcomes for any bytes at all in place of an answer', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (bytes, reset) => {
        await bothCalls((socket) => {
          if (reset) socket.write(bytes, () => socket.resetAndDestroy());
          else socket.end(bytes);
        });
      }),
      { numRuns: 200 },
    );
  });

  test('gives one of the outcomes for any body under any status and encoding, whole or cut', async () => {
    const encoding = fc.constantFrom(
      '',
      'content-encoding: gzip\r\n',
      'content-encoding: br\r\n',
      'transfer-encoding: chunked\r\n',
    );
    const status = fc.oneof(
      fc.integer({ min: 200, max: 599 }),
      fc.constantFrom(0, 99, 100, 101, 103, 600, 999),
    );
    await fc.assert(
      fc.asyncProperty(status, anyBody, encoding, fc.nat(20), async (code, body, encoded, missing) => {
        const bytes = Buffer.from(body);
        const length = encoded.startsWith('transfer') ? '' : `content-length: ${bytes.length + missing}\r\n`;
        const head = `HTTP/1.1 ${String(code).padStart(3, '0')} X\r\n${length}${encoded}\r\n`;
        await bothCalls((socket) => socket.end(Buffer.concat([Buffer.from(head), bytes])));
      }),
      { numRuns: 300 },
    );
  });
});
