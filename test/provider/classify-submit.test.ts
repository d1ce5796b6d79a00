import { describe, expect, test } from '@jest/globals';
import type { Exchange } from '../../src/provider/answer.js';
import { answered, broken, submitOf } from './exchanges.js';

/** One case: what came, and what of the outcome is promised. */
type Case = readonly [Exchange, Record<string, unknown>];

const accepted = (taskId: string) => ({ kind: 'accepted', taskId });
const rejected = (code: string) => ({ kind: 'rejected', code });
const rateLimited = { kind: 'notAccepted', reason: 'rateLimited' };
const unconfirmed = { kind: 'unconfirmed' };
const misrouted = { kind: 'misrouted' };
const NOT_ACCEPTED = { kind: 'notAccepted', reason: 'serverError' };
const quota = { kind: 'refused', reason: 'quota' };

/** The rows of the table in docs/provider.md, each by its words. */
const ROWS: Readonly<Record<string, readonly Case[]>> = {
  '2xx or 5xx with a task id, wherever it is and whatever the code: accepted': [
    [answered(200, { code: 200, data: { task_id: 't' } }), { ...accepted('t'), warning: null }],
    [answered(200, { code: '200', data: { id: 't' } }), { ...accepted('t'), warning: null }],
    [answered(200, { code: 'success', task_id: 't' }), { ...accepted('t'), warning: null }],
    [answered(200, { code: 0, id: 't' }), { ...accepted('t'), warning: null }],
    [answered(200, { code: '0', data: 't' }), { ...accepted('t'), warning: null }],
    [answered(200, { code: 'SUCCESS', data: ' t ' }), { ...accepted('t'), warning: null }],
    [answered(201, { task_id: 't' }), { ...accepted('t'), warning: null }],
    [answered(200, { data: { task_id: 'a', id: 'b' }, task_id: 'c', id: 'd' }), accepted('a')],
    [answered(200, { data: { task_id: '', id: 'b' }, task_id: 'c', id: 'd' }), accepted('b')],
    [answered(200, { data: {}, task_id: 'c', id: 'd' }), accepted('c')],
    [answered(200, { data: null, task_id: {}, id: 'd' }), accepted('d')],
    [answered(200, { code: 200, data: { task_id: 42 } }), accepted('42')],
    [answered(200, '{"code":200,"data":{"task_id":98765432109876543210}}'), accepted('98765432109876543210')],
    [answered(200, '\uFEFF {"code":200,"data":{"task_id":"t"}}'), accepted('t')],
    [answered(500, { code: 'x', data: { task_id: 't' } }), accepted('t')],
    [answered(503, { task_id: 't' }), accepted('t')],
    [answered(504, { id: 't' }), accepted('t')],
    [answered(500, { code: 'invalid_request', data: { task_id: 't' } }), accepted('t')],
  ],
  'a code that is not a success beside a task id: accepted, and kept as a warning': [
    [
      answered(200, { code: 'quota_not_enough', message: 'no more', data: { task_id: 't' } }),
      { ...accepted('t'), warning: 'The answer named a task beside the code quota_not_enough: no more' },
    ],
    [
      answered(200, { error: { message: 'odd' }, id: 't' }),
      { warning: 'The answer named a task beside an error: odd' },
    ],
    [answered(502, { task_id: 't' }), { warning: 'The answer named a task beside the status 502.' }],
  ],
  'what is not an id does not accept: empty, blank, long, with control characters, zero, objects': [
    [answered(200, { code: 200, data: { task_id: '' } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: '  ' } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: 'x'.repeat(257) } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: 'x'.repeat(256) } }), accepted('x'.repeat(256))],
    [answered(200, { code: 200, data: { task_id: 'a\nb' } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: 'a\u0000' } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: 0 } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: true } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: {} } }), unconfirmed],
    [answered(200, { code: 200, data: { task_id: ['t'] } }), unconfirmed],
    [answered(200, { code: 200, data: 'task submitted' }), unconfirmed],
    [answered(200, { code: 200, data: [] }), unconfirmed],
  ],
  'data as a string is an id only beside a success code': [
    [answered(200, { data: 't' }), unconfirmed],
    [answered(200, { code: '', data: 't' }), unconfirmed],
    [answered(200, { code: 'bad_ratio', data: 't' }), rejected('bad_ratio')],
    [answered(500, { code: 'x', data: 't' }), unconfirmed],
  ],
  '2xx JSON without id and with a code that is not a success: rejected': [
    [
      answered(200, { code: 'bad_ratio', msg: 'not that ratio', data: null }),
      { ...rejected('bad_ratio'), message: 'not that ratio', forbidden: false },
    ],
    [answered(200, { code: 400, message: 'rate limit of generate' }), rejected('400')],
    [answered(200, { code: 500, message: 'x' }), rejected('500')],
    [answered(201, { code: 1, message: 'x' }), rejected('1')],
    [answered(200, { code: 401, message: 'x' }), rejected('401')],
  ],
  'the same with a rate or load code: not accepted': [
    [answered(200, { code: 429 }), rateLimited],
    [answered(200, { code: '429' }), rateLimited],
    [answered(200, { code: 'rate_limit_exceeded' }), rateLimited],
    [answered(200, { code: 'too_many_requests' }), rateLimited],
    [
      answered(200, { code: 'too_many_requests' }, { 'retry-after': '7' }),
      { ...rateLimited, retryAfterMs: 7000 },
    ],
  ],
  '2xx with only an error object: by its code; without a code: rejected': [
    [
      answered(200, { error: { code: 'content_policy', message: 'no' } }),
      { ...rejected('content_policy'), message: 'no' },
    ],
    [answered(200, { error: { code: 'rate_limit_exceeded' } }), rateLimited],
    [answered(200, { error: { code: 'quota_not_enough' } }), quota],
    [
      answered(200, { error: { code: '', message: 'no', type: 'comet_api_error' } }),
      { ...rejected('error'), message: 'no' },
    ],
    [answered(200, { error: { message: 'too_many_requests' } }), { kind: 'rejected' }],
    [answered(200, { error: {} }), { kind: 'rejected' }],
  ],
  '2xx without an id and without a failure code: unconfirmed': [
    [answered(200, {}), unconfirmed],
    [answered(200, ''), { ...unconfirmed, reason: 'unreadable' }],
    [answered(201, ''), unconfirmed],
    [answered(202, {}), unconfirmed],
    [answered(204, ''), unconfirmed],
    [answered(200, '{"code":200,"data":{"task_id":"t'), { ...unconfirmed, reason: 'unreadable' }],
    [answered(200, 'OK'), unconfirmed],
    [answered(200, 'null'), unconfirmed],
    [answered(200, '[]'), unconfirmed],
    [answered(200, '"t"'), unconfirmed],
    [answered(200, '<html></html>'), { ...unconfirmed, reason: 'unreadable' }],
    [answered(200, { code: 200, data: null }), { ...unconfirmed, reason: 'noTaskId' }],
    [answered(200, { code: 'success', error: { code: 'odd' } }), unconfirmed],
    [answered(200, { error: null, message: 'failed' }), unconfirmed],
    [
      broken('connectionLost', { httpStatus: 200, body: '{"code":"bad"}' }),
      { ...unconfirmed, reason: 'connectionLost' },
    ],
    [broken('tooLarge', { httpStatus: 200 }), { ...unconfirmed, reason: 'tooLarge' }],
  ],
  'a connection that was never up (DNS, refused, TLS, connect time-out): not accepted': [
    [broken('connect', { sent: false }), { kind: 'notAccepted', reason: 'connect', retryAfterMs: null }],
    [broken('aborted', { sent: false }), { kind: 'notAccepted', reason: 'connect' }],
    [broken('timeout', { sent: false }), { kind: 'notAccepted', reason: 'connect' }],
  ],
  '429, any body: not accepted': [
    [answered(429, ''), { ...rateLimited, retryAfterMs: null }],
    [answered(429, '<html></html>'), rateLimited],
    [answered(429, { code: 'quota_not_enough' }), rateLimited],
    [answered(429, { data: { task_id: 't' } }), rateLimited],
    [answered(429, '', { 'retry-after': '12' }), { ...rateLimited, retryAfterMs: 12_000 }],
    [
      answered(429, '', { 'retry-after': 'Fri, 13 Mar 2026 12:00:30 GMT' }),
      { ...rateLimited, retryAfterMs: 30_000 },
    ],
    [broken('connectionLost', { httpStatus: 429 }), rateLimited],
  ],
  'the other quota codes, flat or inside error, at any status but 429: refused': [
    'insufficient_user_quota',
    'pre_consume_token_quota_failed',
    'INSUFFICIENT_USER_QUOTA',
  ].flatMap((code): Case[] => [
    ...[200, 302, 400, 401, 403, 404, 408, 413, 500, 503, 504].flatMap((status): Case[] => [
      [answered(status, { code, message: 'm', data: null }), quota],
      [answered(status, { error: { code, message: 'm', type: 'comet_api_error' } }), quota],
    ]),
    [answered(429, { code }), rateLimited],
    [answered(200, { code, data: { task_id: 't' } }), accepted('t')],
    [answered(403, { error: { code: '', message: code } }), { kind: 'rejected' }],
  ]),
  '401, 402, and quota_not_enough at any status but 429: refused': [
    [answered(401, ''), { kind: 'refused', reason: 'key' }],
    [answered(401, '<html></html>'), { kind: 'refused', reason: 'key' }],
    [answered(402, {}), quota],
    [answered(200, { code: 'quota_not_enough' }), quota],
    [answered(302, { code: 'quota_not_enough' }), quota],
    [answered(400, { error: { code: 'quota_not_enough' } }), quota],
    [answered(401, { code: 'quota_not_enough' }), quota],
    [answered(403, { code: 'quota_not_enough' }), quota],
    [answered(408, { code: 'quota_not_enough' }), quota],
    [answered(500, { code: 'quota_not_enough' }), quota],
    [answered(504, { error: { code: 'quota_not_enough' } }), quota],
    [answered(400, { message: 'quota_not_enough' }), { kind: 'rejected' }],
  ],
  '403 without that code: rejected, and marked': [
    [
      answered(403, { code: 'forbidden', message: 'this model is not yours' }),
      { ...rejected('forbidden'), forbidden: true },
    ],
    [answered(403, { error: { message: 'no', type: 'comet_api_error', code: '' } }), rejected('http_403')],
    [answered(403, { code: 403, message: 'no', data: null }), { ...rejected('403'), forbidden: true }],
  ],
  '408, 409, 425 and 499: unconfirmed': [408, 409, 425, 499].flatMap((status): Case[] => [
    [answered(status, ''), unconfirmed],
    [answered(status, { code: 'invalid_request' }), unconfirmed],
    [answered(status, { data: { task_id: 't' } }), unconfirmed],
  ]),
  'any other 4xx, JSON or HTML: rejected, also beside a task id': [
    [
      answered(400, { code: 'callback_url_empty', message: 'm' }),
      { ...rejected('callback_url_empty'), forbidden: false },
    ],
    [answered(400, { error: { code: 'bad', message: 'm' } }), { ...rejected('bad'), message: 'm' }],
    [answered(400, { code: 'rate_limit_exceeded' }), rejected('rate_limit_exceeded')],
    [answered(400, { code: 200, data: { task_id: 't' } }), rejected('http_400')],
    [answered(400, '<html></html>'), rejected('http_400')],
    [answered(413, '<html></html>'), rejected('http_413')],
    [answered(414, ''), rejected('http_414')],
    [answered(431, ''), rejected('http_431')],
    [answered(422, { code: 'x' }), rejected('x')],
    [answered(422, {}), rejected('http_422')],
  ],
  '404, 405, 407 and 421, whatever the body: misrouted': [404, 405, 407, 421].flatMap((status): Case[] => [
    [answered(status, '<html></html>'), misrouted],
    [answered(status, ''), misrouted],
    [
      answered(status, { error: { message: 'Invalid URL (POST /v1/runway/pro/generate)', code: '' } }),
      misrouted,
    ],
    [answered(status, { data: { task_id: 't' } }), misrouted],
    [broken('connectionLost', { httpStatus: status }), misrouted],
  ]),
  "403 without one of the API's envelopes: misrouted": [
    [answered(403, '<html>Attention Required!</html>'), misrouted],
    [answered(403, '', { 'content-type': 'text/html' }), misrouted],
    [answered(403, { message: 'Forbidden' }), misrouted],
    [answered(403, { status: 403, error: 'Forbidden' }), misrouted],
    [answered(403, []), misrouted],
    [answered(403, 'Forbidden'), misrouted],
  ],
  'any redirect: misrouted': [300, 301, 302, 303, 304, 307, 308].map((status): Case => [
    answered(status, { data: { task_id: 't' } }, { location: 'https://elsewhere.example/' }),
    misrouted,
  ]),
  '503 with a code that says nothing was accepted, flat or inside error: not accepted': [
    [answered(503, { code: 'model_not_found', message: 'm', data: null }), NOT_ACCEPTED],
    [
      answered(503, { error: { code: 'model_not_found' } }, { 'retry-after': '3' }),
      { ...NOT_ACCEPTED, retryAfterMs: 3000 },
    ],
    [answered(503, { error: { message: 'model_not_found' } }), unconfirmed],
    [answered(500, { code: 'model_not_found' }), unconfirmed],
    [answered(502, { code: 'model_not_found' }), unconfirmed],
    [answered(400, { code: 'model_not_found' }), rejected('model_not_found')],
    [answered(503, { code: 'model_not_found', data: { task_id: 't' } }), accepted('t')],
  ],
  '500 with the code invalid_request: rejected': [
    [
      answered(500, { code: 'invalid_request', message: 'm' }),
      { ...rejected('invalid_request'), message: 'm' },
    ],
    [answered(500, { error: { code: 'invalid_request' } }), rejected('invalid_request')],
    [answered(500, { message: 'invalid_request' }), unconfirmed],
    [answered(503, { code: 'invalid_request' }), unconfirmed],
  ],
  '500 and 503 by default: unconfirmed': [
    [answered(500, { error: { message: 'x' } }), unconfirmed],
    [answered(500, '<html></html>'), unconfirmed],
    [answered(503, ''), unconfirmed],
    [answered(500, { code: 'rate_limit_exceeded' }), unconfirmed],
  ],
  'any other 5xx: unconfirmed': [501, 502, 504, 520, 521, 522, 523, 524, 529, 599].flatMap(
    (status): Case[] => [
      [answered(status, '<html></html>'), unconfirmed],
      [answered(status, { code: 'invalid_request' }), unconfirmed],
    ],
  ),
  'read time-out, reset or abort after sending: unconfirmed': [
    [broken('timeout'), { ...unconfirmed, reason: 'timeout' }],
    [broken('connectionLost'), { ...unconfirmed, reason: 'connectionLost' }],
    [broken('aborted'), { ...unconfirmed, reason: 'aborted' }],
    [broken('timeout', { httpStatus: 200 }), unconfirmed],
  ],
  'a status outside HTTP: unconfirmed': [0, 99, 101, 199, 600, 999].map((status): Case => [
    answered(status, { data: { task_id: 't' } }),
    unconfirmed,
  ]),
};

describe.each(Object.entries(ROWS))('%s', (_row, cases) => {
  test.each(cases.map(([exchange, outcome]) => ({ exchange, outcome })))(
    '$exchange.httpStatus $exchange.body → $outcome.kind',
    ({ exchange, outcome }) => {
      expect(submitOf(exchange)).toMatchObject(outcome);
    },
  );
});

test('without listed codes a 503 is as unclear as any other', () => {
  const exchange = answered(503, { code: 'model_not_found' });
  expect(submitOf(exchange, 'unconfirmed', [])).toMatchObject(unconfirmed);
  expect(submitOf(answered(503, { code: 'No_Channel' }), 'unconfirmed', ['no_channel'])).toMatchObject(
    NOT_ACCEPTED,
  );
});

test('a misrouted answer names the address that it came to as the thing to check', () => {
  expect(submitOf(answered(404, '<html></html>'))).toMatchObject({
    message: expect.stringMatching(/404.*not the API\. Check COMETAPI_BASE_URL/),
  });
});

describe("the policy 'retry'", () => {
  const retried = { kind: 'notAccepted', reason: 'serverError' };
  test('makes 500 and 503, JSON or HTML, not accepted, with the wait that is asked for', () => {
    expect(submitOf(answered(500, { error: {} }), 'retry')).toMatchObject({ ...retried, retryAfterMs: null });
    expect(submitOf(answered(503, '<html></html>', { 'retry-after': '3' }), 'retry')).toMatchObject({
      ...retried,
      retryAfterMs: 3000,
    });
  });

  test('changes no other row', () => {
    for (const [row, cases] of Object.entries(ROWS)) {
      if (row === '500 and 503 by default: unconfirmed') continue;
      for (const [exchange, outcome] of cases) {
        const is5xx =
          (exchange.httpStatus === 500 || exchange.httpStatus === 503) && outcome['kind'] === 'unconfirmed';
        expect(submitOf(exchange, 'retry')).toMatchObject(is5xx ? retried : outcome);
      }
    }
  });

  test('makes a 503 with a listed code no clearer when its body broke off', () => {
    const exchange = broken('connectionLost', { httpStatus: 503, body: '{"code":"model_not_found"}' });
    expect(submitOf(exchange)).toMatchObject(unconfirmed);
    expect(submitOf(exchange, 'retry')).toMatchObject(unconfirmed);
  });

  test('does not cover a 500 whose body broke off, since it may have named a task', () => {
    expect(submitOf(broken('connectionLost', { httpStatus: 500 }), 'retry')).toMatchObject(unconfirmed);
  });
});

test('the message decides nothing: an answer that only talks of rates and quotas keeps its class', () => {
  const talk = 'rate limit, quota_not_enough, 429 too_many_requests, task_not_exist, success';
  for (const [status, kind] of [
    [200, 'unconfirmed'],
    [400, 'rejected'],
    [500, 'unconfirmed'],
  ] as const) {
    expect(submitOf(answered(status, { message: talk })).kind).toBe(kind);
  }
});
