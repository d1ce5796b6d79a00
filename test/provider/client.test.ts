import { afterEach, describe, expect, test } from '@jest/globals';
import { gzipSync } from 'node:zlib';
import type http from 'node:http';
import { API_KEY, AT } from './exchanges.js';
import { CALLBACK_URL, onStop, provider, REQUEST, serveHttp, serveTls, stopAll } from './servers.js';
import { CERTIFICATE } from './tls.js';

afterEach(stopAll);

interface Seen {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: unknown;
}

/** A server that writes down what it is asked, and answers JSON. */
async function recorder(body: unknown, status = 200, headers: http.OutgoingHttpHeaders = {}) {
  const seen: Seen[] = [];
  const baseUrl = await serveHttp((request, response) => {
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk.toString('utf8')));
    request.on('end', () => {
      seen.push({
        method: request.method,
        url: request.url,
        headers: request.headers,
        body: JSON.parse(text),
      });
      response.writeHead(status, headers);
      response.end(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    });
  });
  return { baseUrl, seen };
}

describe('what is sent', () => {
  test('a submit carries every documented field, the callback address and the version', async () => {
    const { baseUrl, seen } = await recorder({ code: 200, data: { task_id: 't' } });
    const request = {
      prompt: 'a boat — ボート',
      model: 'gen4',
      image: 'https://images.example/a.png',
      ratio: '720:1280',
      style: 'cinematic',
      options: { seconds: 5 as const, motion_vector: { x: 1 }, image_as_end_frame: false, seed: 7 },
      last_image: 'https://images.example/z.png',
    };
    await provider(baseUrl).submit(request, { callbackUrl: CALLBACK_URL });
    expect(seen).toMatchObject([
      {
        method: 'POST',
        url: '/runway/pro/generate',
        headers: {
          authorization: `Bearer ${API_KEY}`,
          'content-type': 'application/json',
          'x-runway-version': '2024-11-06',
          connection: 'close',
        },
      },
    ]);
    expect(seen[0]?.body).toEqual({ ...request, callback_url: CALLBACK_URL });
  });

  test('fields that the request leaves out are left out, but for the length', async () => {
    const { baseUrl, seen } = await recorder({ code: 200, data: { task_id: 't' } });
    await provider(baseUrl).submit(REQUEST, { callbackUrl: CALLBACK_URL });
    expect(seen[0]?.body).toEqual({ ...REQUEST, options: { seconds: 5 }, callback_url: CALLBACK_URL });
  });

  test('a poll asks for the task with the same headers', async () => {
    const { baseUrl, seen } = await recorder({ task_id: 't' });
    await provider(`${baseUrl}/`).poll('t');
    expect(seen).toMatchObject([
      {
        method: 'POST',
        url: '/runway/feed',
        headers: { authorization: `Bearer ${API_KEY}`, 'x-runway-version': '2024-11-06' },
        body: { task_id: 't' },
      },
    ]);
  });

  test('proxy variables are not honoured', async () => {
    const proxy = await recorder({ code: 200, data: { task_id: 'from-the-proxy' } });
    const { baseUrl } = await recorder({ code: 200, data: { task_id: 't' } });
    const before = { ...process.env };
    onStop(() => {
      process.env = before;
    });
    Object.assign(process.env, {
      HTTP_PROXY: proxy.baseUrl,
      http_proxy: proxy.baseUrl,
      NO_PROXY: '',
      no_proxy: '',
    });
    expect(await provider(baseUrl).submit(REQUEST, { callbackUrl: CALLBACK_URL })).toMatchObject({
      taskId: 't',
    });
    expect(proxy.seen).toEqual([]);
  });

  test('a redirect is not followed, by neither call', async () => {
    const target = await recorder({ code: 200, data: { task_id: 't' } });
    const { baseUrl } = await recorder('', 307, { location: `${target.baseUrl}/x` });
    const caller = provider(baseUrl);
    expect((await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL })).kind).toBe('misrouted');
    expect((await caller.poll('t')).kind).toBe('misconfigured');
    expect(target.seen).toEqual([]);
  });

  test('each submit has a connection of its own; polls share one', async () => {
    const ports: (number | undefined)[] = [];
    const baseUrl = await serveHttp((request, response) => {
      ports.push(request.socket.remotePort);
      request.resume().on('end', () => response.end('{"code":200,"data":{"task_id":"t"}}'));
    });
    const caller = provider(baseUrl);
    for (let i = 0; i < 2; i += 1) await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL });
    for (let i = 0; i < 2; i += 1) await caller.poll('t');
    expect(ports[0]).not.toBe(ports[1]);
    expect(ports[2]).toBe(ports[3]);
  });
});

describe('what is told', () => {
  test('onSent is called once, without waiting for the answer, and what it throws does not matter', async () => {
    let calls = 0;
    let tell: (() => void) | undefined;
    const told = new Promise<void>((resolve) => (tell = resolve));
    const baseUrl = await serveHttp((request, response) => {
      // Holds the answer back until then: were it never called, the submit would time out.
      void told.then(() =>
        request.resume().on('end', () => response.end('{"code":200,"data":{"task_id":"t"}}')),
      );
    });
    const outcome = await provider(baseUrl).submit(REQUEST, {
      callbackUrl: CALLBACK_URL,
      onSent: () => {
        calls += 1;
        tell?.();
        throw new Error('from the hook');
      },
    });
    expect(outcome.kind).toBe('accepted');
    expect(calls).toBe(1);
  });

  test('onSent comes only after the TLS handshake', async () => {
    const events: string[] = [];
    const baseUrl = await serveTls((socket) => {
      events.push('secure');
      socket.once('data', () => socket.end('HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n'));
    });
    const outcome = await provider(baseUrl, { ca: CERTIFICATE }).submit(REQUEST, {
      callbackUrl: CALLBACK_URL,
      onSent: () => events.push('sent'),
    });
    expect(outcome).toMatchObject({ kind: 'notAccepted', reason: 'rateLimited' });
    expect(events).toContain('sent');
  });

  test('the answer is kept with its instant, status and request id', async () => {
    const { baseUrl } = await recorder({ code: 'x', message: 'no' }, 400, { 'X-Oneapi-Request-Id': 'req-1' });
    const { answer } = await provider(baseUrl).submit(REQUEST, { callbackUrl: CALLBACK_URL });
    expect(answer).toEqual({
      at: AT,
      call: 'submit',
      httpStatus: 400,
      requestId: 'req-1',
      body: '{"code":"x","message":"no"}',
      error: null,
    });
  });

  test('the key is redacted wherever the server echoes it', async () => {
    const echo = `you sent Bearer ${API_KEY}`;
    const { baseUrl } = await recorder({ code: API_KEY, message: echo }, 400, {
      'x-oneapi-request-id': echo,
    });
    const caller = provider(baseUrl);
    for (const outcome of [
      await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL }),
      await caller.poll('t'),
    ]) {
      expect(JSON.stringify(outcome)).not.toContain(API_KEY);
      expect(outcome.answer.requestId).toBe('you sent Bearer [redacted]');
      expect(outcome.answer.body).toContain('[redacted]');
    }
  });

  test('every call is logged, and a log that throws changes nothing', async () => {
    const { baseUrl } = await recorder({ task_id: 't' });
    const lines: unknown[] = [];
    const log = {
      debug(fields: unknown) {
        lines.push(fields);
        throw new Error('disk full');
      },
    };
    expect((await provider(baseUrl, { log }).poll('t')).kind).toBe('pending');
    expect(lines).toMatchObject([{ call: 'poll', outcome: 'pending', httpStatus: 200 }]);
  });
});

/** A success of exactly this many bytes. */
function answerOf(length: number): string {
  const empty = JSON.stringify({ code: 200, data: { task_id: 't' }, pad: '' });
  return empty.replace('"pad":""', `"pad":"${'x'.repeat(length - empty.length)}"`);
}

describe('what is read', () => {
  test('a body that came compressed unasked is read all the same', async () => {
    const body = gzipSync(JSON.stringify({ code: 200, data: { task_id: 't' } }));
    const { baseUrl } = await recorder(body, 200, { 'content-encoding': 'gzip' });
    expect(await provider(baseUrl).submit(REQUEST, { callbackUrl: CALLBACK_URL })).toMatchObject({
      taskId: 't',
    });
  });

  test('a decompression bomb is cut at the limit', async () => {
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 'x'));
    const { baseUrl } = await recorder(bomb, 200, { 'content-encoding': 'gzip' });
    const caller = provider(baseUrl);
    const outcome = await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL });
    expect(outcome).toMatchObject({ kind: 'unconfirmed', reason: 'tooLarge' });
    expect(outcome.answer.body).toHaveLength(2048);
    expect(await caller.poll('t')).toMatchObject({ kind: 'unavailable', reason: 'tooLarge' });
  });

  test('a body that is not what its encoding says is no whole answer', async () => {
    const { baseUrl } = await recorder('{"code":200}', 200, { 'content-encoding': 'gzip' });
    const caller = provider(baseUrl);
    expect((await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL })).kind).toBe('unconfirmed');
    expect((await caller.poll('t')).kind).toBe('unavailable');
  });

  test('an answer of exactly the limit is read, one byte more is not', async () => {
    const whole = await recorder(answerOf(1024 * 1024));
    const over = await recorder(answerOf(1024 * 1024 + 1));
    const options = { callbackUrl: CALLBACK_URL };
    expect((await provider(whole.baseUrl).submit(REQUEST, options)).kind).toBe('accepted');
    expect((await provider(over.baseUrl).submit(REQUEST, options)).kind).toBe('unconfirmed');
  });
});

test('what cannot even be sent is not accepted, and nothing is thrown', async () => {
  const circular: Record<string, unknown> = {};
  circular['self'] = circular;
  const { baseUrl, seen } = await recorder({ code: 200, data: { task_id: 't' } });
  const caller = provider(baseUrl);
  const options = { callbackUrl: CALLBACK_URL };
  expect(await caller.submit({ ...REQUEST, options: circular }, options)).toMatchObject({
    kind: 'notAccepted',
  });
  const lost = provider('not a url');
  expect(await lost.submit(REQUEST, options)).toMatchObject({ kind: 'notAccepted', reason: 'connect' });
  expect(await lost.poll('t')).toMatchObject({ kind: 'unavailable', reason: 'connect' });
  expect(seen).toEqual([]);
});

test('close leaves a submit under way alone', async () => {
  const baseUrl = await serveHttp((request, response) => {
    request.resume().on('end', () => {
      caller.close();
      response.end('{"code":200,"data":{"task_id":"t"}}');
    });
  });
  const caller = provider(baseUrl);
  expect((await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL })).kind).toBe('accepted');
});
