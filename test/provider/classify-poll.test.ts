import { describe, expect, test } from '@jest/globals';
import type { Exchange } from '../../src/provider/answer.js';
import { mayResubmit } from '../../src/provider/classify-poll.js';
import { answered, broken, pollOf, TASK_ID } from './exchanges.js';

type Case = readonly [Exchange, Record<string, unknown>];

const URL_A = 'https://cdn.example/a.mp4';
const URL_B = 'http://cdn.example/b.mp4';
const pending = { kind: 'pending' };
const failed = { kind: 'failed' };
const succeeded = (videoUrl = URL_A) => ({ kind: 'succeeded', videoUrl });
const unavailable = (reason: string) => ({ kind: 'unavailable', reason });
const misconfigured = { kind: 'misconfigured' };
const notVisible = { kind: 'notVisible' };

/** The three shapes around the same fields. */
const SHAPES: Readonly<Record<string, (task: object) => unknown>> = {
  'W, wrapped': (task) => ({ code: 'success', message: '', data: { task_id: TASK_ID, ...task } }),
  'B, bare, and callbacks': (task) => ({ task_id: TASK_ID, ...task }),
  'O, old': (task) => ({ code: 200, msg: 'ok', data: { task_id: TASK_ID, ...task }, exec_time: 0.1 }),
};

const WORDS = {
  pending: [
    '',
    ' ',
    '0',
    'NOT_START',
    'SUBMITTED',
    'QUEUED',
    'QUEUEING',
    'PENDING',
    'THROTTLED',
    'UNKNOWN',
    'A_NEW_WORD',
    '4',
    '33',
  ],
  running: ['1', 'IN_PROGRESS', 'RUNNING', 'PROCESSING'],
  succeeded: ['3', 'SUCCESS', 'SUCCEEDED', 'SUCCEED', 'COMPLETED', 'DONE'],
  failed: ['2', 'FAILURE', 'FAILED', 'FAIL', 'ERROR', 'CANCELLED', 'CANCELED', 'EXPIRED'],
};

describe.each(Object.entries(SHAPES))('state words in shape %s', (_name, shape) => {
  test.each(WORDS.pending)('%j is pending', (word) => {
    expect(pollOf(answered(200, shape({ status: word })))).toMatchObject({ kind: 'pending', running: false });
  });
  test.each(WORDS.running)('%j is running', (word) => {
    expect(pollOf(answered(200, shape({ status: word })))).toMatchObject({
      kind: 'pending',
      running: true,
      word,
    });
  });
  test.each(WORDS.succeeded)('%j is succeeded, and without a URL a kind of its own', (word) => {
    expect(pollOf(answered(200, shape({ status: word, video_url: URL_A })))).toMatchObject(succeeded());
    expect(pollOf(answered(200, shape({ status: word }))).kind).toBe('succeededWithoutUrl');
  });
  test.each(WORDS.failed)('%j is failed', (word) => {
    expect(pollOf(answered(200, shape({ status: word })))).toMatchObject(failed);
  });
  test('absent is pending, and with a usable URL succeeded', () => {
    expect(pollOf(answered(200, shape({})))).toMatchObject({ kind: 'pending', word: '' });
    expect(pollOf(answered(200, shape({ video_url: URL_A })))).toMatchObject(succeeded());
    expect(pollOf(answered(200, shape({ video_url: 'ftp://cdn.example/a.mp4' })))).toMatchObject(pending);
  });
  test('words are trimmed and their case is forgiven; numbers are words', () => {
    expect(pollOf(answered(200, shape({ status: ' failed ' })))).toMatchObject(failed);
    expect(pollOf(answered(200, shape({ status: 1 })))).toMatchObject({ running: true });
    expect(pollOf(answered(200, shape({ status: 2 })))).toMatchObject(failed);
    expect(pollOf(answered(200, shape({ status: 3, url: URL_A })))).toMatchObject(succeeded());
    expect(pollOf(answered(200, shape({ status: {} })))).toMatchObject(pending);
  });
});

const w = SHAPES['W, wrapped']!;

/** The reading rules of docs/provider.md and the table of what a poll can come to. */
const RULES: Readonly<Record<string, readonly Case[]>> = {
  'an error object is an error: unavailable': [
    [answered(200, { error: { message: 'x', code: 'y' } }), unavailable('businessError')],
    [
      answered(200, { task_id: TASK_ID, status: 'FAILED', error: { message: 'x' } }),
      unavailable('businessError'),
    ],
  ],
  'task_not_exist at any HTTP status: not visible yet': [
    ...[200, 302, 400, 401, 403, 404, 429, 500, 503].map((status): Case => [
      answered(status, { code: 'task_not_exist', message: 'task_not_exist', data: null }),
      notVisible,
    ]),
    [answered(400, { message: 'task_not_exist' }), notVisible],
    [answered(200, { code: 'x', msg: 'task_not_exist' }), notVisible],
    [answered(400, { error: { code: 'task_not_exist', message: '' } }), notVisible],
    [answered(404, { error: { message: 'task_not_exist' } }), notVisible],
    [answered(400, { message: 'maybe task_not_exist' }), unavailable('httpStatus')],
  ],
  'a body with task_id is the task, even if data looks like one': [
    [
      answered(200, { task_id: TASK_ID, status: 'QUEUED', data: { task_id: 'other', status: 'FAILED' } }),
      { ...pending, word: 'QUEUED' },
    ],
    [answered(200, { task_id: TASK_ID, status: 'FAILED', code: 'whatever' }), failed],
    [answered(200, { task_id: '', data: { task_id: TASK_ID, status: 'FAILED' } }), failed],
  ],
  'else data with task_id, id, status or state is the task': [
    [answered(200, { code: 200, status: 'PENDING', data: { task_id: TASK_ID, status: 'FAILED' } }), failed],
    [answered(200, { code: 200, status: 'PENDING', data: { id: 17, state: 'FAILED' } }), failed],
    [answered(200, { code: 200, data: { status: 'FAILED' } }), failed],
    [answered(200, { code: 200, data: { state: 'FAILED' } }), failed],
    [answered(200, { code: 200, data: { id: 'x' } }), pending],
    [answered(200, { code: 200, data: { status: '' } }), pending],
  ],
  'else the body is the task, and data the view of the upstream': [
    [answered(200, { status: 'FAILED' }), failed],
    [answered(200, { code: 200, data: { video_url: URL_A } }), succeeded()],
  ],
  'the state text is the first that is not empty of state, status, data.status': [
    [answered(200, w({ state: 'FAILED', status: 'QUEUED' })), failed],
    [answered(200, w({ state: '', status: 'FAILED' })), failed],
    [answered(200, w({ state: null, status: '', data: { status: 'FAILED' } })), failed],
    [answered(200, w({ data: { status: 'RUNNING' } })), { ...pending, running: true, word: 'RUNNING' }],
  ],
  'outer pending and inner terminal: the outer, unless a usable URL is there': [
    [answered(200, w({ status: 'QUEUED', data: { status: 'SUCCEEDED' } })), pending],
    [
      answered(200, w({ status: 'IN_PROGRESS', data: { status: 'SUCCEEDED', output: [URL_A] } })),
      succeeded(),
    ],
    [answered(200, w({ status: 'QUEUED', data: { status: 'FAILED' } })), pending],
    [answered(200, w({ status: 'QUEUED', video_url: URL_A, data: { status: 'FAILED' } })), pending],
    [answered(200, w({ status: 'QUEUED', video_url: URL_A, data: { status: 'RUNNING' } })), pending],
    [answered(200, w({ status: 'QUEUED', video_url: URL_A })), pending],
  ],
  'outer failed but inner succeeded with a usable URL: succeeded': [
    [
      answered(
        200,
        w({ status: 'FAILURE', fail_reason: 'timed out', data: { status: 'SUCCEEDED', output: [URL_A] } }),
      ),
      succeeded(),
    ],
    [
      answered(
        200,
        w({ status: 'FAILURE', fail_reason: 'timed out', data: { status: 'SUCCEEDED', output: [] } }),
      ),
      failed,
    ],
    [answered(200, w({ status: 'FAILURE', video_url: URL_A })), failed],
  ],
  'outer succeeded and inner not: succeeded': [
    [answered(200, w({ status: 'SUCCESS', video_url: URL_A, data: { status: 'FAILED' } })), succeeded()],
    [answered(200, w({ status: 'SUCCESS', data: { status: 'RUNNING' } })), { kind: 'succeededWithoutUrl' }],
  ],
  'the video URL is the first usable of the documented fields, in their order': [
    ...[
      { video_url: URL_A },
      { raw_video_url: URL_A },
      { result_url: URL_A },
      { output: [URL_A] },
      { data: { output: [URL_A] } },
      { data: { video_url: URL_A } },
      { data: { video: { url: URL_A } } },
      { url: URL_A },
      { fail_reason: URL_A },
    ].map((field, index, all): Case => [
      // Every later field holds another URL, every earlier one something that is none.
      answered(200, w({ status: 'SUCCESS', ...laterFields(all.slice(index + 1)), ...field })),
      succeeded(),
    ]),
    [answered(200, w({ status: '3', video_url: 'soon', raw_video_url: '', result_url: URL_A })), succeeded()],
    [answered(200, w({ status: '3', video_url: ['', URL_A] })), succeeded()],
    [answered(200, w({ status: '3', video_url: [URL_B, URL_A] })), succeeded(URL_B)],
    [answered(200, w({ status: '3', video_url: `  ${URL_A}\n` })), succeeded()],
    [
      answered(200, w({ status: '3', video_url: 'https://cdn.example/my film.mp4' })),
      succeeded('https://cdn.example/my%20film.mp4'),
    ],
    [answered(200, w({ status: '3', video_url: 'file:///etc/passwd' })), { kind: 'succeededWithoutUrl' }],
    [answered(200, w({ status: '3', video_url: 'javascript:alert(1)' })), { kind: 'succeededWithoutUrl' }],
    [answered(200, w({ status: '3', video_url: 'https://' })), { kind: 'succeededWithoutUrl' }],
    [
      answered(200, w({ status: '3', fail_reason: 'https://status.example is down' })),
      { kind: 'succeededWithoutUrl' },
    ],
  ],
  'a fail_reason never means failure': [
    [answered(200, w({ status: 'SUCCESS', fail_reason: 'boom', video_url: URL_A })), succeeded()],
    [answered(200, w({ status: 'QUEUED', fail_reason: 'boom' })), pending],
    [answered(200, w({ fail_reason: 'boom' })), pending],
  ],
  'poster and last frame': [
    [
      answered(200, w({ status: '3', video_url: URL_A, poster: URL_B, last_frame: [URL_A] })),
      { posterUrl: URL_B, lastFrameUrl: URL_A },
    ],
    [
      answered(200, w({ status: '3', video_url: URL_A, poster: '', last_frame: 0 })),
      { posterUrl: null, lastFrameUrl: null },
    ],
  ],
  'the error text is the first of the documented fields, in their order': [
    [answered(200, w({ status: '2', fail_reason: 'a', msg: 'b' })), { message: 'a' }],
    [answered(200, w({ status: '2', fail_reason: '', msg: 'b', failure: 'c' })), { message: 'b' }],
    [answered(200, w({ status: '2', failure: 'c', data: { failure: 'd' } })), { message: 'c' }],
    [answered(200, w({ status: '2', data: { failure: 'd' }, result_url: 'e' })), { message: 'd' }],
    [answered(200, w({ status: '2', result_url: 'e', message: 'f' })), { message: 'e' }],
    [answered(200, w({ status: '2', result_url: URL_A, message: 'f' })), { message: 'f' }],
    [answered(200, w({ status: '2' })), { message: null, code: null, mayResubmit: 'later' }],
  ],
  'the failure code is failureCode, then data.failureCode': [
    [
      answered(200, w({ status: '2', failureCode: 'SAFETY.X', data: { failureCode: 'INTERNAL' } })),
      { code: 'SAFETY.X', mayResubmit: 'never' },
    ],
    [
      answered(200, w({ status: '2', data: { failureCode: 'INTERNAL.BAD_OUTPUT.CODE01' } })),
      { code: 'INTERNAL.BAD_OUTPUT.CODE01', mayResubmit: 'once' },
    ],
  ],
  'point and refund are amounts, as strings or numbers; empty is not zero': [
    [answered(200, w({ status: '2', point: '320', refund: '0' })), { billing: { point: 320, refund: 0 } }],
    [answered(200, w({ status: '3', point: 320, refund: '' })), { billing: { point: 320, refund: null } }],
    [answered(200, w({ status: '3', point: 'many' })), { billing: { point: null, refund: null } }],
  ],
  'progress is a percentage from 0 to 100, of the outer or else the inner': [
    ...(
      [
        ['0%', 0],
        ['37%', 37],
        [' 99.5 % ', 99.5],
        ['100%', 100],
        [42, 42],
        ['42', 42],
        [0.37, 37],
        ['0.37', 37],
        ['0.37%', 0.37],
        [1, 1],
        [0, 0],
        [250, 100],
        [-5, 0],
        ['', null],
        ['soon', null],
        [null, null],
        [[50], null],
      ] as const
    ).map(([written, progress]): Case => [
      answered(200, w({ status: '1', progress: written })),
      { ...pending, progress },
    ]),
    [answered(200, w({ status: '1', data: { progress: 0.5 } })), { progress: 50 }],
    [answered(200, w({ status: '1', progress: '10%', data: { progress: 0.5 } })), { progress: 10 }],
  ],
  'an answer about another task is not believed': [
    [answered(200, { task_id: 'other', status: 'SUCCESS', video_url: URL_A }), unavailable('otherTask')],
    [answered(200, { code: 200, data: { task_id: 'other', status: 'FAILED' } }), unavailable('otherTask')],
  ],
  '401, 403 and redirects: misconfigured': [
    ...[401, 403, 300, 301, 302, 304, 307, 308].map((status): Case => [answered(status, ''), misconfigured]),
    [answered(403, { task_id: TASK_ID, status: 'FAILED' }), misconfigured],
  ],
  'HTML with 200: misconfigured': [
    [answered(200, '<!doctype html><html></html>'), misconfigured],
    [answered(200, '\n <HTML>'), misconfigured],
    [answered(200, 'Welcome', { 'content-type': 'text/html' }), misconfigured],
    [answered(200, w({ status: 'QUEUED' }), { 'content-type': 'text/html' }), pending],
  ],
  '429, 5xx, any other status, whatever the body: unavailable': [
    [
      answered(429, w({ status: 'FAILED' }), { 'retry-after': '9' }),
      { ...unavailable('rateLimited'), retryAfterMs: 9000 },
    ],
    [
      answered(503, '<html></html>', { 'retry-after': '9' }),
      { ...unavailable('httpStatus'), retryAfterMs: 9000 },
    ],
    ...[
      400, 402, 404, 405, 408, 409, 410, 418, 422, 425, 499, 500, 502, 504, 520, 529, 99, 101, 600, 999,
    ].map((status): Case => [
      answered(status, w({ status: 'FAILED', fail_reason: 'x' })),
      unavailable('httpStatus'),
    ]),
    [answered(404, '<html></html>'), unavailable('httpStatus')],
  ],
  'garbage with 200: unavailable': [
    ...['', ' ', 'OK', '{', '{"task_id":"task-1","status":"FAILED"', 'null', '[]', '7', '"x"'].map(
      (body): Case => [answered(200, body), unavailable('unreadable')],
    ),
    [answered(204, ''), unavailable('unreadable')],
    [answered(200, {}), unavailable('unreadable')],
    [answered(200, { code: 200, msg: 'ok', data: null }), unavailable('unreadable')],
  ],
  'a business error with 200: unavailable': [
    [answered(200, { code: 'internal', message: 'x', data: null }), unavailable('businessError')],
    [answered(200, { code: 500, message: 'x', status: 'FAILED' }), unavailable('businessError')],
    [
      answered(200, { code: 'x', data: { task_id: TASK_ID, status: 'FAILED' } }),
      unavailable('businessError'),
    ],
    [answered(200, { code: 'x', task_id: TASK_ID }), unavailable('businessError')],
    [
      answered(200, { code: 'x', data: { task_id: TASK_ID, status: 'SUCCESS', video_url: URL_A } }),
      succeeded(),
    ],
  ],
  'no whole answer: unavailable': [
    [broken('connect', { sent: false }), unavailable('connect')],
    [broken('timeout'), unavailable('timeout')],
    [broken('aborted'), unavailable('aborted')],
    [
      broken('connectionLost', {
        httpStatus: 200,
        body: JSON.stringify({ task_id: TASK_ID, status: 'FAILED' }),
      }),
      unavailable('connectionLost'),
    ],
    [broken('tooLarge', { httpStatus: 200 }), unavailable('tooLarge')],
    [broken('connectionLost', { httpStatus: 401 }), misconfigured],
  ],
};

/** Other URLs in all of `parts`, whose `data` objects are merged. */
function laterFields(parts: readonly object[]): object {
  const other = JSON.parse(JSON.stringify(parts).replaceAll(URL_A, URL_B)) as { data?: object }[];
  const data = Object.assign({}, ...other.map((part) => part.data ?? {})) as object;
  return { ...(Object.assign({}, ...other) as object), data };
}

describe.each(Object.entries(RULES))('%s', (_rule, cases) => {
  test.each(cases.map(([exchange, outcome]) => ({ exchange, outcome })))(
    '$exchange.httpStatus $exchange.body',
    ({ exchange, outcome }) => {
      expect(pollOf(exchange)).toMatchObject(outcome);
    },
  );
});

test.each([
  ['SAFETY', 'never'],
  ['SAFETY.INPUT.TEXT', 'never'],
  ['SAFETY.OUTPUT.VIDEO', 'never'],
  ['INPUT_PREPROCESSING.SAFETY.TEXT', 'never'],
  ['ASSET.INVALID', 'never'],
  ['INTERNAL.BAD_OUTPUT', 'once'],
  ['INTERNAL.BAD_OUTPUT.CODE01', 'once'],
  ['INPUT_PREPROCESSING.INTERNAL', 'later'],
  ['THIRD_PARTY.UNAVAILABLE', 'later'],
  ['INTERNAL', 'later'],
  ['INTERNAL.OTHER', 'later'],
  [null, 'later'],
  ['internal.bad_output.code01', 'once'],
  // A prefix ends at a dot, and what nobody knows is not bought twice.
  ['INTERNAL.BAD_OUTPUTS', 'later'],
  ['SAFETYNET', 'never'],
  ['INTERNALS', 'never'],
  ['THIRD_PARTY', 'never'],
  ['A_NEW_CODE', 'never'],
  ['constructor', 'never'],
] as const)('a task that failed with %s may be resubmitted: %s', (code, may) => {
  expect(mayResubmit(code)).toBe(may);
});
