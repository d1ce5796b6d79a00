/** One random request as the bytes of a connection: any route, method, header, body, size, depth and speed. */
import type { Dice } from './dice.js';

export const TOKEN = 'token-of-the-fuzzing-1';
export const READER = 'token-that-only-reads';
export const ACCOUNT = { user: 'ada', password: 'correct horse battery' } as const;

const MAX_BYTES = 17 * 1024 * 1024;
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS', 'PURGE', 'get'] as const;
const TYPES = [
  'application/json',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'text/plain',
  'application/json; charset=utf-16',
] as const;

export interface FuzzRequest {
  readonly parts: readonly Buffer[];
  /** Between two parts. */
  readonly pauseMs: number;
  /** Ends the connection after the last part, whatever was announced. */
  readonly cut: boolean;
  /** All that was announced is sent: it is to be answered. */
  readonly whole: boolean;
}

/** Text of JSON, so that it can be deeper and odder than any value. */
function json(dice: Dice): string {
  const depth = dice.size(200_000);
  const wide = dice.size(200_000);
  return dice.pick([
    () => `${'['.repeat(depth)}${']'.repeat(depth)}`,
    () => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`,
    () => '['.repeat(depth),
    () => `[${'[],'.repeat(wide)}0]`,
    () => `{${Array.from({ length: wide / 10 }, (_, i) => `"k${i}":${i}`).join()}}`,
    () => `"${'\\u0000'.repeat(wide)}"`,
    () => `{"prompt":${JSON.stringify('x'.repeat(wide))},"image":"https://example.com/a.png"}`,
    () => `{"request":{"prompt":"x"},"metadata":{"a":[${'0,'.repeat(wide)}0]}}`,
    () => `{"request":{"prompt":"x"},"delayMs":${dice.whole(-5, 1e9)},"tenant":"t${dice.whole(0, 9)}"}`,
    () => `{"adopt":"${dice.bytes(20).toString('hex')}"}`,
    () => '{"__proto__":{"a":1},"constructor":null,"items":7}',
    () => `${dice.next() * 10 ** dice.whole(-400, 400)}`,
    () => '{"resubmit":true}',
  ])();
}

function body(dice: Dice, path: string): Buffer {
  if (dice.chance(0.002))
    return Buffer.alloc(dice.whole(0, MAX_BYTES), dice.pick(['[', '{"a":', '[],', 'a=1&', ' ']));
  if (dice.chance(0.3)) return dice.bytes(dice.size(20_000));
  if (path.endsWith('/batch') && dice.chance(0.8)) {
    const items = Array.from({ length: dice.size(1200) }, () =>
      dice.chance(0.98) ? '{"prompt":"x"}' : json(dice),
    );
    return Buffer.from(`{"items":[${items.join()}]}`);
  }
  if (dice.chance(0.2))
    return Buffer.from(new URLSearchParams({ ...ACCOUNT, csrf: 'x', ids: json(dice) }).toString());
  return Buffer.from(json(dice));
}

function headers(dice: Dice, cookie: string): string[] {
  const basic = (password: string) => Buffer.from(`${ACCOUNT.user}:${password}`).toString('base64');
  const authorization = dice.pick([
    '',
    `Authorization: Bearer ${TOKEN}`,
    `Authorization: Bearer ${TOKEN}`,
    `Authorization: Bearer ${READER}`,
    `Authorization: Bearer ${dice.bytes(12).toString('base64')}`,
    `Authorization: Basic ${basic(dice.chance(0.5) ? ACCOUNT.password : 'wrong')}`,
    `Cookie: ${cookie}`,
    `Cookie: reelhaul_session=${dice.bytes(32).toString('base64url')}`,
  ]);
  const more = [
    `Accept: ${dice.pick(['text/html', '*/*', 'text/event-stream'])}`,
    `Origin: ${dice.pick(['null', 'https://evil.example', 'http://127.0.0.1'])}`,
    `Sec-Fetch-Site: ${dice.pick(['same-origin', 'cross-site', 'none'])}`,
    `X-Forwarded-For: ${dice.pick(['203.0.113.9', 'x'.repeat(dice.size(8000)), ',,,', '::1'])}`,
    `Idempotency-Key: ${dice.bytes(dice.size(300)).toString('hex')}`,
    `Last-Event-ID: ${dice.pick(['0-0', '99999999999999999999-1', 'x', '-'])}`,
    `Range: bytes=${dice.pick(['0-', '-5', '9-1', '0-0,2-3', '99999999999999999999-', 'x'])}`,
    `If-None-Match: "${dice.bytes(8).toString('hex')}"`,
    `X-${dice.bytes(3).toString('hex')}: ${'y'.repeat(dice.size(20_000))}`,
  ];
  return [authorization, ...more.filter(() => dice.chance(0.2))].filter(Boolean);
}

function target(dice: Dice, routes: readonly string[]): string {
  const path = dice.pick(routes);
  if (dice.chance(0.1)) return `${path}/${encodeURIComponent(dice.bytes(dice.size(200)).toString('latin1'))}`;
  if (dice.chance(0.05)) return `/${dice.pick(['..', '%2e%2e', '%', '%00', '//', '\\'])}${path}`;
  if (dice.chance(0.3)) {
    const name = dice.pick([
      'limit',
      'cursor',
      'state',
      'tenant',
      'createdAfter',
      'day',
      'span',
      'q',
      'show',
      'next',
    ]);
    return `${path}?${name}=${encodeURIComponent(dice.bytes(dice.size(400)).toString('latin1'))}`;
  }
  return path;
}

/** In how many parts, and how fast, it is sent: a few dribble. */
function sent(dice: Dice, all: Buffer, whole = true): FuzzRequest {
  const cut = dice.chance(0.05);
  const bytes = cut ? all.subarray(0, dice.whole(0, all.length)) : all;
  if (!dice.chance(0.02)) return { parts: [bytes], pauseMs: 0, cut, whole: whole && !cut };
  const step = Math.max(1, Math.ceil(bytes.length / dice.whole(2, 20)));
  const parts = Array.from({ length: Math.ceil(bytes.length / step) }, (_, i) =>
    bytes.subarray(i * step, (i + 1) * step),
  );
  return { parts, pauseMs: dice.whole(1, 30), cut, whole: whole && !cut };
}

export function makeRequest(dice: Dice, routes: readonly string[], cookie: string): FuzzRequest {
  if (dice.chance(0.02)) return sent(dice, dice.bytes(dice.size(5000)), false);
  const path = target(dice, routes);
  const method = dice.pick(METHODS);
  const lines = [
    `${method} ${path} HTTP/1.${dice.pick(['1', '1', '1', '0'])}`,
    'Host: 127.0.0.1',
    ...headers(dice, cookie),
  ];
  if (['GET', 'HEAD'].includes(method) && dice.chance(0.9))
    return sent(dice, Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'));
  const content = body(dice, path);
  lines.push(`Content-Type: ${dice.pick(TYPES)}`);
  if (dice.chance(0.02)) lines.push('Content-Encoding: gzip');
  if (dice.chance(0.3)) {
    const head = Buffer.from(`${[...lines, 'Transfer-Encoding: chunked'].join('\r\n')}\r\n\r\n`, 'latin1');
    const size = Buffer.from(`${content.length.toString(16)}\r\n`);
    const chunk = content.length === 0 ? [] : [size, content, Buffer.from('\r\n')];
    return sent(dice, Buffer.concat([head, ...chunk, Buffer.from('0\r\n\r\n')]));
  }
  const announced = dice.chance(0.05) ? dice.whole(0, 400 * 1024 * 1024) : content.length;
  const head = Buffer.from(`${[...lines, `Content-Length: ${announced}`].join('\r\n')}\r\n\r\n`, 'latin1');
  return sent(dice, Buffer.concat([head, content]), announced <= content.length);
}
