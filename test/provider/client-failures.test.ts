import { afterEach, describe, expect, test } from '@jest/globals';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import type { ProviderOptions } from '../../src/provider/client.js';
import {
  afterRequest,
  CALLBACK_URL,
  closedPort,
  onStop,
  provider,
  REQUEST,
  serveHttp,
  serveSocket,
  serveTls,
  stopAll,
} from './servers.js';
import { CERTIFICATE } from './tls.js';

afterEach(stopAll);

/** Both calls against one server; `sent` counts how often a submit said that it had left. */
async function bothCalls(baseUrl: string, options: Partial<ProviderOptions> = {}) {
  const caller = provider(baseUrl, options);
  let sent = 0;
  const submit = await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, onSent: () => (sent += 1) });
  return { submit, poll: await caller.poll('t'), sent };
}

const notAccepted = { kind: 'notAccepted', reason: 'connect', answer: { httpStatus: null, body: '' } };

describe('before the connection was up: not accepted', () => {
  test('connection refused', async () => {
    const { submit, poll, sent } = await bothCalls(`http://127.0.0.1:${await closedPort()}`);
    expect(submit).toMatchObject(notAccepted);
    expect(submit.answer.error).toContain('ECONNREFUSED');
    expect(poll).toMatchObject({ kind: 'unavailable', reason: 'connect' });
    expect(sent).toBe(0);
  });

  test('a name that does not resolve', async () => {
    // RFC 6761 reserves .invalid; where look-ups hang instead of failing, the connect time-out ends them.
    const { submit, poll, sent } = await bothCalls('http://reelhaul.invalid', { connectTimeoutMs: 2000 });
    expect(submit).toMatchObject(notAccepted);
    expect(poll).toMatchObject({ kind: 'unavailable', reason: 'connect' });
    expect(sent).toBe(0);
  });

  test('a server whose backlog is full', async () => {
    const { submit, poll, sent } = await bothCalls(await fullBacklog(), { connectTimeoutMs: 100 });
    expect(submit).toMatchObject({ ...notAccepted, message: 'No connection within 100 ms.' });
    expect(poll).toMatchObject({ kind: 'unavailable', reason: 'connect' });
    expect(sent).toBe(0);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a certificate that is not trusted (%s); the server reads nothing',
    async (version) => {
      let read = 0;
      const over: Promise<unknown>[] = [];
      const baseUrl = await serveTls(
        (socket) => {
          socket.on('data', (chunk: Buffer) => (read += chunk.length));
          over.push(new Promise((resolve) => socket.on('close', resolve)));
        },
        { minVersion: version, maxVersion: version },
      );
      const { submit, poll, sent } = await bothCalls(baseUrl);
      expect(submit).toMatchObject(notAccepted);
      expect(poll).toMatchObject({ kind: 'unavailable', reason: 'connect' });
      await Promise.all(over);
      expect({ sent, read }).toEqual({ sent: 0, read: 0 });
    },
  );

  test('a certificate for another name', async () => {
    const baseUrl = await serveTls((socket) => socket.resume());
    const { submit } = await bothCalls(baseUrl.replace('localhost', '127.0.0.2'), { ca: CERTIFICATE });
    expect(submit).toMatchObject({ kind: 'notAccepted', reason: 'connect' });
  });

  test('a server that does not speak TLS', async () => {
    const baseUrl = await serveSocket((socket) =>
      socket.on('data', () => socket.write('HTTP/1.1 400 No\r\n\r\n')),
    );
    const { submit, sent } = await bothCalls(baseUrl.replace('http:', 'https:'));
    expect(submit).toMatchObject(notAccepted);
    expect(sent).toBe(0);
  });

  test('a reset in the middle of the TLS handshake', async () => {
    const baseUrl = await serveSocket((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const { submit, poll, sent } = await bothCalls(baseUrl.replace('http:', 'https:'));
    expect(submit).toMatchObject(notAccepted);
    expect(poll).toMatchObject({ kind: 'unavailable', reason: 'connect' });
    expect(sent).toBe(0);
  });

  test('a TLS handshake that never ends', async () => {
    const baseUrl = await serveSocket((socket) => socket.resume());
    const options = { connectTimeoutMs: 100 };
    const { submit, sent } = await bothCalls(baseUrl.replace('http:', 'https:'), options);
    expect(submit).toMatchObject({ ...notAccepted, message: 'No connection within 100 ms.' });
    expect(sent).toBe(0);
  });

  test('the connect time-out is never longer than the whole', async () => {
    const baseUrl = await serveSocket((socket) => socket.resume());
    const options = { submitTimeoutMs: 100, pollTimeoutMs: 100 };
    const { submit } = await bothCalls(baseUrl.replace('http:', 'https:'), options);
    expect(submit).toMatchObject(notAccepted);
  });
});

const unconfirmed = (reason: string) => ({ kind: 'unconfirmed', reason });
const unavailable = (reason: string) => ({ kind: 'unavailable', reason });
const small = { submitTimeoutMs: 200, pollTimeoutMs: 200 };

describe('after the connection was up: unconfirmed', () => {
  test('a reset before any answer', async () => {
    const baseUrl = await serveSocket((socket) => afterRequest(socket, () => socket.resetAndDestroy()));
    const { submit, poll, sent } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({ ...unconfirmed('connectionLost'), answer: { httpStatus: null } });
    expect(submit.answer.error).toContain('ECONNRESET');
    expect(poll).toMatchObject(unavailable('connectionLost'));
    expect(sent).toBe(1);
  });

  test('a reset at the first byte, though not all was read', async () => {
    const baseUrl = await serveSocket((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const caller = provider(baseUrl);
    const request = { ...REQUEST, prompt: 'x'.repeat(20_000) };
    expect(await caller.submit(request, { callbackUrl: CALLBACK_URL })).toMatchObject(
      unconfirmed('connectionLost'),
    );
    expect(await caller.poll('t')).toMatchObject(unavailable('connectionLost'));
  });

  test('a reset after the TLS handshake', async () => {
    const baseUrl = await serveTls((socket) => socket.once('data', () => socket.destroy()));
    const { submit, sent } = await bothCalls(baseUrl, { ca: CERTIFICATE });
    expect(submit).toMatchObject(unconfirmed('connectionLost'));
    expect(sent).toBe(1);
  });

  test('a connection closed without an answer', async () => {
    const baseUrl = await serveSocket((socket) => afterRequest(socket, () => socket.end()));
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject(unconfirmed('connectionLost'));
    expect(poll).toMatchObject(unavailable('connectionLost'));
  });

  test('no answer within the time-out', async () => {
    const { submit, poll, sent } = await bothCalls(await serveSocket((socket) => socket.resume()), small);
    expect(submit).toMatchObject({ ...unconfirmed('timeout'), message: 'No whole answer within 200 ms.' });
    expect(poll).toMatchObject(unavailable('timeout'));
    expect(sent).toBe(1);
  });

  test('a reset in the middle of the body; the half is kept', async () => {
    const baseUrl = await serveHttp((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200, { 'content-length': 500 });
        response.write('{"code":200,"data":{"task_id":"t', () => response.socket?.resetAndDestroy());
      });
    });
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({
      ...unconfirmed('connectionLost'),
      answer: { httpStatus: 200 },
    });
    expect(poll).toMatchObject(unavailable('connectionLost'));
  });

  test('a body shorter than its Content-Length; the half is kept', async () => {
    const half = '{"code":200,"data":';
    const baseUrl = await serveSocket((socket) =>
      afterRequest(socket, () => socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n${half}`)),
    );
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({
      ...unconfirmed('connectionLost'),
      answer: { httpStatus: 200, body: half },
    });
    expect(poll).toMatchObject(unavailable('connectionLost'));
  });

  test('a whole task id in a body that was to be longer is still a task', async () => {
    const body = '{"code":200,"data":{"task_id":"t"}}';
    const baseUrl = await serveSocket((socket) =>
      afterRequest(socket, () => socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n${body}`)),
    );
    const { submit } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({ kind: 'accepted', taskId: 't' });
  });

  test('a chunked body without its end', async () => {
    const baseUrl = await serveSocket((socket) =>
      afterRequest(socket, () =>
        socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"cod\r\n'),
      ),
    );
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject(unconfirmed('connectionLost'));
    expect(poll).toMatchObject(unavailable('connectionLost'));
  });

  test('a body that drips for longer than the whole time-out', async () => {
    const baseUrl = await serveHttp((request, response) => {
      request.resume();
      response.writeHead(200);
      const drip = setInterval(() => response.write(' '), 5);
      response.on('close', () => clearInterval(drip));
    });
    const { submit, poll } = await bothCalls(baseUrl, small);
    expect(submit).toMatchObject({ ...unconfirmed('timeout'), answer: { httpStatus: 200 } });
    expect(poll).toMatchObject(unavailable('timeout'));
  });

  test('headers that drip for longer than the whole time-out', async () => {
    const baseUrl = await serveSocket((socket) => {
      socket.resume();
      socket.write('HTTP/1.1 200 OK\r\n');
      const drip = setInterval(() => socket.write('x: y\r\n'), 5);
      socket.on('close', () => clearInterval(drip));
    });
    const { submit, poll } = await bothCalls(baseUrl, small);
    expect(submit).toMatchObject(unconfirmed('timeout'));
    expect(poll).toMatchObject(unavailable('timeout'));
  });

  test('only "go on" and never an answer', async () => {
    const baseUrl = await serveSocket((socket) => {
      socket.resume();
      const drip = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 5);
      socket.on('close', () => clearInterval(drip));
    });
    const { submit, poll } = await bothCalls(baseUrl, small);
    expect(submit).toMatchObject(unconfirmed('timeout'));
    expect(poll).toMatchObject(unavailable('timeout'));
  });

  test('a body without end is cut at the limit', async () => {
    const baseUrl = await serveHttp((request, response) => {
      request.resume();
      const piece = Buffer.alloc(64 * 1024, 'x');
      const pour = () => {
        while (response.write(piece));
        response.once('drain', pour);
      };
      pour();
    });
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({
      ...unconfirmed('tooLarge'),
      answer: { httpStatus: 200, body: 'x'.repeat(2048) },
    });
    expect(poll).toMatchObject(unavailable('tooLarge'));
  });

  test.each([
    ['a garbage status line', 'BANANA 42\r\n\r\n'],
    ['a status that is no number', 'HTTP/1.1 OK OK\r\n\r\n'],
    ['bytes of anything', '\u0000\u0001\u00ff'],
    ['headers without limit', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`],
    ['another protocol', 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'],
  ])('%s', async (_name, answer) => {
    const baseUrl = await serveSocket((socket) => afterRequest(socket, () => socket.end(answer, 'latin1')));
    const { submit, poll } = await bothCalls(baseUrl);
    expect(submit).toMatchObject(unconfirmed('connectionLost'));
    expect(poll).toMatchObject(unavailable('connectionLost'));
  });

  test('204, and a status outside HTTP', async () => {
    for (const status of ['204 No Content', '999 What']) {
      const baseUrl = await serveSocket((socket) =>
        afterRequest(socket, () => socket.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\n\r\n`)),
      );
      const { submit, poll } = await bothCalls(baseUrl);
      expect(submit).toMatchObject({
        kind: 'unconfirmed',
        answer: { httpStatus: Number.parseInt(status, 10) },
      });
      expect(poll).toMatchObject({ kind: 'unavailable' });
    }
  });

  test('an answer before the request was read is an answer', async () => {
    const baseUrl = await serveSocket((socket) => {
      socket.end('HTTP/1.1 429 Slow\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
    });
    const { submit } = await bothCalls(baseUrl);
    expect(submit).toMatchObject({ kind: 'notAccepted', reason: 'rateLimited', retryAfterMs: 2000 });
  });
});

test('of several Retry-After headers the first counts, and one that makes no sense is as none', async () => {
  const answer = (...headers: string[]) =>
    serveSocket((socket) => {
      const lines = ['HTTP/1.1 429 Slow', ...headers, 'content-length: 0', 'connection: close'];
      afterRequest(socket, () => socket.end(`${lines.join('\r\n')}\r\n\r\n`));
    });
  const twice = await bothCalls(await answer('retry-after: 2', 'Retry-After: 86400'));
  expect([twice.submit, twice.poll]).toMatchObject([{ retryAfterMs: 2000 }, { retryAfterMs: 2000 }]);
  const senseless = await bothCalls(await answer('retry-after: 2, 86400'));
  expect([senseless.submit, senseless.poll]).toMatchObject([{ retryAfterMs: null }, { retryAfterMs: null }]);
});

describe('an abort', () => {
  test('before the call sends nothing: not accepted', async () => {
    let connections = 0;
    const caller = provider(await serveSocket(() => (connections += 1)));
    const signal = AbortSignal.abort();
    expect(await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, signal })).toMatchObject(notAccepted);
    expect(await caller.poll('t', { signal })).toMatchObject(unavailable('aborted'));
    expect(connections).toBe(0);
  });

  test('during the TLS handshake sends nothing: not accepted', async () => {
    const stop = new AbortController();
    const baseUrl = await serveSocket((socket) => socket.once('data', () => stop.abort()));
    const caller = provider(baseUrl.replace('http:', 'https:'));
    expect(await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, signal: stop.signal })).toMatchObject({
      ...notAccepted,
      message: 'Aborted before anything was sent.',
    });
  });

  test('in the same turn as the call sends nothing: not accepted', async () => {
    const stop = new AbortController();
    const asked: (string | undefined)[] = [];
    const baseUrl = await serveHttp((request, response) => {
      asked.push(request.url);
      request.resume().on('end', () => response.end('{"task_id":"t"}'));
    });
    const caller = provider(baseUrl);
    const submitted = caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, signal: stop.signal });
    stop.abort();
    expect(await submitted).toMatchObject(notAccepted);
    // What had left before would arrive before this one is answered.
    await caller.poll('t');
    expect(asked).toEqual(['/runway/feed']);
  });

  test('after the request was sent: unconfirmed', async () => {
    const stop = new AbortController();
    const baseUrl = await serveSocket((socket) => afterRequest(socket, () => stop.abort()));
    const caller = provider(baseUrl);
    expect(await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, signal: stop.signal })).toMatchObject(
      unconfirmed('aborted'),
    );
  });

  test('in the middle of the body: unconfirmed, a poll unavailable', async () => {
    for (const call of ['submit', 'poll'] as const) {
      const stop = new AbortController();
      const baseUrl = await serveHttp((request, response) => {
        request.resume();
        response.write('{"code":', () => stop.abort());
      });
      const caller = provider(baseUrl);
      const { signal } = stop;
      const outcome =
        call === 'submit'
          ? await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, signal })
          : await caller.poll('t', { signal });
      expect(outcome).toMatchObject({
        kind: call === 'submit' ? 'unconfirmed' : 'unavailable',
        reason: 'aborted',
      });
    }
  });

  test('leaves no listener behind on a signal that outlives the call', async () => {
    const { signal } = new AbortController();
    let added = 0;
    let removed = 0;
    const watched = new Proxy(signal, {
      get(target, name) {
        if (name === 'addEventListener') added += 1;
        if (name === 'removeEventListener') removed += 1;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    const caller = provider(await serveHttp((_, response) => response.end('{"task_id":"t"}')));
    await caller.poll('t', { signal: watched });
    expect(added).toBeGreaterThan(0);
    expect(removed).toBe(added);
  });
});

test('an answer that arrived while the process stood still past the time-out is read', async () => {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     const server = require('node:http').createServer((request, response) => {
       request.resume().on('end', () => {
         response.end('{"code":200,"data":{"task_id":"t"}}', () => {
           Atomics.store(workerData, 0, 1);
           Atomics.notify(workerData, 0);
         });
       });
     });
     server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`,
    { eval: true, workerData: flag },
  );
  onStop(async () => {
    await worker.terminate();
  });
  const port = await new Promise<number>((resolve) => worker.once('message', resolve));
  const caller = provider(`http://127.0.0.1:${port}`, { submitTimeoutMs: 100 });
  const onSent = () => {
    const sentAt = performance.now();
    Atomics.wait(flag, 0, 0);
    while (performance.now() - sentAt <= 110);
  };
  expect(await caller.submit(REQUEST, { callbackUrl: CALLBACK_URL, onSent })).toMatchObject({
    kind: 'accepted',
  });
});

/**
 * A port on which connections are neither taken nor refused: its server listens with the smallest backlog in a thread
 * that then sleeps for good, and the backlog is filled here.
 */
async function fullBacklog(): Promise<string> {
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
     const server = require('node:net').createServer();
     server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
       parentPort.postMessage(server.address().port);
       setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
     });`,
    { eval: true },
  );
  onStop(async () => {
    await worker.terminate();
  });
  const port = await new Promise<number>((resolve) => worker.once('message', resolve));
  // Each that gets in leaves less room; the first that hangs proves that there is none left.
  for (;;) {
    const filler = net.connect(port, '127.0.0.1').on('error', () => undefined);
    onStop(() => void filler.destroy());
    const gotIn = await new Promise<boolean>((resolve) => {
      filler.once('connect', () => resolve(true));
      setTimeout(() => resolve(false), 100);
    });
    if (!gotIn) return `http://127.0.0.1:${port}`;
  }
}
