import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { callbackUrl, createCallbackToken } from '../../src/provider/callback.js';
import { keepAnswer, quote, readRetryAfterMs, redact } from '../../src/provider/answer.js';
import { answered, API_KEY, AT, broken } from './exchanges.js';

const ID = '01890a5d-ac96-774b-bcce-b302099a8057';
const HOUR_MS = 3_600_000;

describe('Retry-After', () => {
  test.each([
    ['0', 0],
    ['7', 7000],
    [' 7 ', 7000],
    ['1.5', 1500],
    ['-5', 0],
    ['3600', HOUR_MS],
    ['3601', HOUR_MS],
    ['9'.repeat(400), HOUR_MS],
    ['Fri, 13 Mar 2026 12:00:30 GMT', 30_000],
    ['Friday, 13-Mar-26 12:00:30 GMT', 30_000],
    ['Fri Mar 13 12:00:30 2026', 30_000],
    ['Fri, 13 Mar 2026 11:00:00 GMT', 0],
    ['Sun, 13 Mar 2033 12:00:00 GMT', HOUR_MS],
    ['', null],
    ['soon', null],
    ['7 seconds', null],
    ['Fri, 99 Foo 2026 12:00:30 GMT', null],
    ['NaN', null],
    ['0x10', null],
  ])('%j is %j ms', (written, waitMs) => {
    expect(readRetryAfterMs(answered(429, '', { 'retry-after': written }), AT)).toBe(waitMs);
  });

  test('absent is null', () => {
    expect(readRetryAfterMs(answered(429, ''), AT)).toBeNull();
  });

  test('is null or from 0 to an hour, whatever the server writes', () => {
    fc.assert(
      fc.property(fc.string(), (written) => {
        const waitMs = readRetryAfterMs(answered(429, '', { 'retry-after': written }), AT);
        expect(waitMs === null || (waitMs >= 0 && waitMs <= HOUR_MS)).toBe(true);
      }),
    );
  });
});

describe('redaction', () => {
  test('knows the key plain, URL-encoded and escaped in JSON', () => {
    const key = 'sk/"ü+1234';
    const spellings = [key, encodeURIComponent(key), JSON.stringify(key)];
    for (const spelling of spellings) {
      const clean = redact(`a ${spelling} b ${spelling}`, key);
      expect(clean).not.toContain(spelling);
      expect(clean.match(/\[redacted\]/g)).toHaveLength(2);
    }
  });

  test.each([
    (url: string) => url,
    (url: string) => JSON.stringify({ url }).replaceAll('/', '\\/'),
    (url: string) => JSON.stringify(JSON.stringify({ url }).replaceAll('/', '\\/')),
    (url: string) => encodeURIComponent(url),
    (url: string) => encodeURIComponent(encodeURIComponent(url)),
    (url: string) => url.replaceAll('/', '\\u002F'),
  ])('covers the token of a callback address, however it is echoed (%#)', (spell) => {
    const token = createCallbackToken('a secret for the tests', ID);
    const url = callbackUrl(
      { publicUrl: 'https://reels.example', placeholderUrl: '', secret: 'a secret for the tests' },
      ID,
    );
    const echoed = spell(url);
    expect(echoed).toContain(token);
    for (const key of [API_KEY, '']) {
      const clean = redact(`a ${echoed} b ${echoed}`, key);
      expect(clean).not.toContain(token);
      expect(clean.match(/\[redacted\]/g)).toHaveLength(2);
    }
    // Cut anywhere within the token.
    const end = echoed.indexOf(token) + 8;
    expect(redact(echoed.slice(0, end), API_KEY)).not.toContain(token.slice(0, 8));
    const kept = keepAnswer('submit', answered(400, `${' '.repeat(1980)}${echoed}`), {
      at: AT,
      apiKey: API_KEY,
    });
    expect(kept.body).not.toContain(token.slice(0, 8));
    expect(quote(`refused: ${echoed}`, API_KEY)).not.toContain(token.slice(0, 8));
  });

  test('covers a key that a broken body ends inside of', () => {
    expect(redact(`Bearer ${API_KEY.slice(0, 10)}`, API_KEY)).toBe('Bearer [redacted]');
  });

  test('an empty key leaves everything as it is', () => {
    expect(redact('abc', '')).toBe('abc');
  });

  test('comes before the cut, so that no part of the key survives it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2000, max: 2100 }), (before) => {
        const body = `${'x'.repeat(before)}${API_KEY}`;
        const kept = keepAnswer('poll', answered(200, body), { at: AT, apiKey: API_KEY });
        expect(kept.body.length).toBeLessThanOrEqual(2048);
        expect(kept.body).not.toContain(API_KEY.slice(0, 4));
      }),
    );
  });
});

test('the error of an answer that broke off is kept, without the key', () => {
  const exchange = {
    ...broken('connectionLost'),
    failure: { reason: 'connectionLost', message: `x ${API_KEY}` } as const,
  };
  expect(keepAnswer('submit', exchange, { at: AT, apiKey: API_KEY })).toEqual({
    at: AT,
    call: 'submit',
    httpStatus: null,
    requestId: null,
    body: '',
    error: 'connectionLost: x [redacted]',
  });
});

test('a quoted message is one line of at most 500 characters, and no half of a character', () => {
  expect(quote(' a\n\tb\u0000c ', '')).toBe('a b c');
  expect(quote('x'.repeat(501), '')).toHaveLength(500);
  expect(quote(`${'x'.repeat(499)}😀`, '')).toBe('x'.repeat(499));
});
