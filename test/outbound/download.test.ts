import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { inspect } from 'node:util';
import { afterEach, describe, expect, test } from '@jest/globals';
import { InvalidInputError } from '../../src/errors.js';
import { AssetError } from '../../src/outbound/asset-error.js';
import { openAsset as open } from '../../src/outbound/download.js';
import { downloadOptions, type DownloadOptions } from './download-options.js';

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

const servers: Server[] = [];
afterEach(async () => {
  await Promise.all(
    servers.splice(0).map(async (server) => {
      if ('closeAllConnections' in server) (server.closeAllConnections as () => void)();
      server.close();
      await once(server, 'close');
    }),
  );
});

async function listen(server: Server): Promise<number> {
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** A real host on loopback; `seen` are its requests. */
async function host(handler: Handler): Promise<{ url: string; port: number; seen: IncomingMessage[] }> {
  const seen: IncomingMessage[] = [];
  const port = await listen(
    createServer((request, response) => {
      seen.push(request);
      handler(request, response);
    }),
  );
  return { url: `http://127.0.0.1:${port}`, port, seen };
}

const answer: Handler = (_request, response) => response.end('ok');
const loopback: DownloadOptions = { allowHosts: ['127.0.0.1'] };
const bytes = randomBytes(300_000);

const openAsset = async (url: string, options: DownloadOptions) => open(url, downloadOptions(options));

async function fetchAll(url: string, options: DownloadOptions = loopback): Promise<Buffer> {
  const { body } = await openAsset(url, options);
  return Buffer.concat((await body.toArray()) as Buffer[]);
}

/** What it fails with, at opening or while reading. */
async function failure(url: string, options: DownloadOptions = loopback): Promise<AssetError> {
  const error: unknown = await fetchAll(url, options).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof AssetError)) throw error ?? new Error('It did not fail.');
  return error;
}

/** The client is gone. */
function hungUp({ socket }: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    socket.once('close', () => resolve());
  });
}

describe('a download', () => {
  test('gives the bytes as they are, their number and their type', async () => {
    const { url, seen } = await host((_request, response) => {
      response.setHeader('Content-Type', 'video/mp4');
      response.setHeader('Content-Length', bytes.length);
      response.end(bytes);
    });
    const asset = await openAsset(`${url}/a.mp4?token=1`, loopback);
    expect(asset).toMatchObject({
      expectedBytes: bytes.length,
      contentType: 'video/mp4',
      finalUrl: `${url}/a.mp4?token=1`,
    });
    expect(Buffer.concat((await asset.body.toArray()) as Buffer[]).equals(bytes)).toBe(true);
    expect(seen[0]?.headers).toMatchObject({ 'accept-encoding': 'identity' });
    expect(seen[0]?.headers).not.toHaveProperty('authorization');
    expect(asset.resumes()).toBe(0);
  });

  test('knows no length when the host says none', async () => {
    const { url } = await host((_request, response) => response.end(bytes.subarray(0, 10)).flushHeaders());
    const chunked = await host((_request, response) => {
      response.write('a');
      response.end('b');
    });
    expect((await fetchAll(url)).length).toBe(10);
    const asset = await openAsset(chunked.url, loopback);
    expect(asset.expectedBytes).toBeNull();
    expect(Buffer.concat((await asset.body.toArray()) as Buffer[]).toString()).toBe('ab');
  });

  test('asks no proxy', async () => {
    const { url } = await host((_request, response) => response.end('direct'));
    process.env['HTTP_PROXY'] = process.env['http_proxy'] = 'http://127.0.0.1:9';
    try {
      expect((await fetchAll(url)).toString()).toBe('direct');
    } finally {
      delete process.env['HTTP_PROXY'];
      delete process.env['http_proxy'];
    }
  });

  test('lets the host go when nobody wants the bytes any more', async () => {
    const { url, seen } = await host((_request, response) => {
      response.write(bytes);
    });
    const { body } = await openAsset(url, loopback);
    const closed = hungUp(seen[0]!);
    body.destroy();
    await closed;
  });
});

describe('a forbidden host', () => {
  const publicAddress = [{ address: '93.184.215.14', family: 4 }];

  test.each([
    'http://127.0.0.1:PORT/',
    'http://127.1:PORT/',
    'http://2130706433:PORT/',
    'http://0x7f.1:PORT/',
    'http://0177.0.0.1:PORT/',
    'http://localhost:PORT/',
    'http://0.0.0.0:PORT/',
    'http://[::1]:PORT/',
    'http://[::]:PORT/',
    'http://[::ffff:127.0.0.1]:PORT/',
    'http://[::ffff:7f00:1]:PORT/',
    'https://127.0.0.1:PORT/',
    'http://169.254.169.254/latest/meta-data',
    'http://10.0.0.1/',
    'http://[fe80::1]/',
    'http://[fd00::1]/',
    'http://[64:ff9b::7f00:1]/',
  ])('is %s, which is never asked', async (link) => {
    const { port, seen } = await host((_request, response) => response.end('secret'));
    const error = await failure(link.replace('PORT', String(port)), {});
    expect(error).toMatchObject({ kind: 'forbiddenHost', code: 'asset_forbidden' });
    expect(error.message).toContain('ARCHIVE_ALLOW_HOSTS');
    expect(seen).toEqual([]);
  });

  test.each([
    'file:///etc/passwd',
    'ftp://example.com/a',
    'data:text/plain,a',
    'gopher://x/',
    'no link',
    '',
    'http://user:pass@example.com/',
  ])('is behind the link %j', async (link) => {
    expect(await failure(link, {})).toMatchObject({ kind: 'forbiddenHost' });
  });

  test('is a public name that resolves to a private address, also as one of several', async () => {
    const { port, seen } = await host((_request, response) => response.end('secret'));
    for (const addresses of [['127.0.0.1'], ['93.184.215.14', '127.0.0.1'], ['::1'], ['::ffff:127.0.0.1']]) {
      const resolve = () =>
        Promise.resolve(addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })));
      const error = await failure(`http://cdn.example.com:${port}/`, { resolve });
      expect(error).toMatchObject({ kind: 'forbiddenHost' });
    }
    expect(seen).toEqual([]);
  });

  test('cannot be reached by answering differently the second time', async () => {
    const { port, seen } = await host((_request, response) => response.end('secret'));
    const addresses = ['127.0.0.2', '127.0.0.1'];
    const resolve = () => Promise.resolve([{ address: addresses.shift()!, family: 4 }]);
    // Nothing listens at the allowed address; the forbidden one would answer.
    const error = await failure(`http://cdn.example.com:${port}/`, { allowHosts: ['127.0.0.2'], resolve });
    expect(error).toMatchObject({ kind: 'unavailable' });
    expect(addresses).toEqual(['127.0.0.1']);
    expect(seen).toEqual([]);
  });

  test.each<[string, string[], string, boolean]>([
    ['the name', ['localhost'], 'localhost', true],
    ['the name and port', ['localhost:PORT'], 'localhost', true],
    ['the name with another port', ['localhost:1'], 'localhost', false],
    ['another name', ['simulator'], 'localhost', false],
    ['the name, but the address is asked for', ['localhost'], '127.0.0.1', false],
    ['the address', ['127.0.0.1'], '127.0.0.1', true],
    ['the address, for a name that resolves to it', ['127.0.0.1'], 'localhost', true],
    ['the address and port, for a name that resolves to it', ['127.0.0.1:PORT'], 'localhost', true],
    ['the address with another port', ['127.0.0.1:1'], 'localhost', false],
    ['a network', ['127.0.0.0/8'], '127.0.0.1', true],
    ['a network, for a name that resolves into it', ['127.0.0.0/8'], 'localhost', true],
    ['another network', ['10.0.0.0/8', 'fd00::/8'], '127.0.0.1', false],
    ['the address, asked for in IPv6 clothes', ['127.0.0.1'], '[::ffff:127.0.0.1]', true],
  ])('is opened by %s: %j', async (_word, entries, name, expected) => {
    const { port } = await host((_request, response) => response.end('ok'));
    const options = { allowHosts: entries.map((entry) => entry.replace('PORT', String(port))) };
    if (expected) expect((await fetchAll(`http://${name}:${port}/`, options)).toString()).toBe('ok');
    else expect(await failure(`http://${name}:${port}/`, options)).toMatchObject({ kind: 'forbiddenHost' });
  });

  test('is not asked at those of its addresses that nobody opened', async () => {
    const { port } = await host(answer);
    const resolve = () =>
      Promise.resolve(['127.0.0.2', '127.0.0.1'].map((address) => ({ address, family: 4 })));
    const options = { allowHosts: ['127.0.0.1'], resolve };
    expect((await fetchAll(`http://cdn.example.com:${port}/`, options)).toString()).toBe('ok');
  });

  test('is every other one, public ones too, when only the allowed may be asked', async () => {
    const { url, port } = await host((_request, response) => response.end('ok'));
    const only = { allowHosts: ['127.0.0.1', 'cdn.example.com'], onlyAllowed: true };
    expect((await fetchAll(url, only)).toString()).toBe('ok');
    const toPublic = { ...only, resolve: () => Promise.resolve(publicAddress) };
    expect(await failure('http://other.example.com/', toPublic)).toMatchObject({ kind: 'forbiddenHost' });
    expect(await failure('http://93.184.215.14/', only)).toMatchObject({ kind: 'forbiddenHost' });
    const named = { ...only, resolve: () => Promise.resolve([{ address: '127.0.0.1', family: 4 }]) };
    expect((await fetchAll(`http://cdn.example.com:${port}/`, named)).toString()).toBe('ok');
  });

  test('may not be named in a way that makes no sense', async () => {
    await expect(openAsset('http://127.0.0.1/', { allowHosts: ['http://x'] })).rejects.toThrow(
      InvalidInputError,
    );
  });
});

describe('a redirect', () => {
  test.each([301, 302, 303, 307, 308])('with %d is followed, also to a relative link', async (status) => {
    const { url } = await host((request, response) => {
      if (request.url === '/x/end') response.end('there');
      else response.writeHead(status, { Location: 'end' }).end();
    });
    const asset = await openAsset(`${url}/x/start`, loopback);
    expect(asset.finalUrl).toBe(`${url}/x/end`);
    expect((await asset.body.toArray()).join('')).toBe('there');
  });

  test('is followed five times, not six', async () => {
    const { url, seen } = await host((request, response) => {
      const left = Number(request.url?.slice(1));
      if (left === 0) response.end('there');
      else response.writeHead(302, { Location: `/${left - 1}` }).end();
    });
    expect((await fetchAll(`${url}/5`)).toString()).toBe('there');
    expect(seen).toHaveLength(6);
    expect(await failure(`${url}/6`)).toMatchObject({ kind: 'unavailable', httpStatus: 302 });
    expect(seen).toHaveLength(12);
  });

  test('to a private address is refused', async () => {
    const inside = await host((_request, response) => response.end('secret'));
    const outside = await host((_request, response) =>
      response.writeHead(302, { Location: inside.url }).end(),
    );
    const error = await failure(outside.url, { allowHosts: [`127.0.0.1:${outside.port}`] });
    expect(error).toMatchObject({ kind: 'forbiddenHost' });
    expect(inside.seen).toEqual([]);
  });

  test.each(['file:///etc/passwd', 'javascript:alert(1)', 'http://user:pass@127.0.0.1/'])(
    'to %s is refused',
    async (location) => {
      const { url } = await host((_request, response) =>
        response.writeHead(302, { Location: location }).end(),
      );
      expect(await failure(url)).toMatchObject({ kind: 'forbiddenHost' });
    },
  );

  test('that says nothing usable is tried again later', async () => {
    const { url } = await host((_request, response) => response.writeHead(302).end());
    expect(await failure(url)).toMatchObject({ kind: 'unavailable' });
  });
});

describe('the API key', () => {
  const key = 'sk-very-secret';

  test('goes to a …/content link of the API itself', async () => {
    const { url, seen } = await host(answer);
    await fetchAll(`${url}/v1/videos/1/content?variant=a`, { ...loopback, api: { baseUrl: `${url}/`, key } });
    expect(seen[0]?.headers.authorization).toBe(`Bearer ${key}`);
  });

  test.each([
    ['another path', '/v1/videos/1/contents', 0],
    ['a file below', '/content/a.mp4', 0],
    ['a query that looks like it', '/a?x=/content', 0],
    ['another port', '/v1/videos/1/content', 1],
  ])('does not go to %s', async (_word, path, which) => {
    const hosts = [await host(answer), await host(answer)];
    await fetchAll(`${hosts[which]!.url}${path}`, { ...loopback, api: { baseUrl: hosts[0]!.url, key } });
    expect(hosts[which]!.seen[0]?.headers).not.toHaveProperty('authorization');
  });

  test('does not go to another name of the same address', async () => {
    const { url, port, seen } = await host(answer);
    await fetchAll(`http://localhost:${port}/1/content`, { ...loopback, api: { baseUrl: url, key } });
    expect(seen[0]?.headers).not.toHaveProperty('authorization');
  });

  test('does not go past a redirect, not even back to the API', async () => {
    const other = await host(answer);
    const api = await host((request, response) => {
      if (request.url === '/out/content') response.writeHead(302, { Location: `${other.url}/content` }).end();
      else if (request.url === '/in/content') response.writeHead(302, { Location: '/end/content' }).end();
      else response.end('ok');
    });
    const options = { ...loopback, api: { baseUrl: api.url, key } };
    await fetchAll(`${api.url}/out/content`, options);
    await fetchAll(`${api.url}/in/content`, options);
    expect(api.seen.map(({ url, headers }) => [url, headers.authorization])).toEqual([
      ['/out/content', `Bearer ${key}`],
      ['/in/content', `Bearer ${key}`],
      ['/end/content', undefined],
    ]);
    expect(other.seen[0]?.headers).not.toHaveProperty('authorization');
  });

  test('is in no error', async () => {
    const { url } = await host((request) => request.socket.destroy());
    const error = await failure(`${url}/content?signature=sesame`, {
      ...loopback,
      api: { baseUrl: url, key },
    });
    expect(inspect(error, { depth: 20, showHidden: true })).not.toContain(key);
    expect(error.message).not.toContain('sesame');
  });
});

describe('an answer', () => {
  test.each([403, 404, 410])('%d means that the link is gone', async (status) => {
    const { url } = await host((_request, response) => response.writeHead(status).end('<html>no</html>'));
    expect(await failure(url)).toMatchObject({ kind: 'gone', code: 'asset_expired', httpStatus: status });
  });

  test.each([201, 204, 206, 304, 400, 401, 408, 416, 429, 500, 502, 503, 520])(
    '%d is tried again later',
    async (status) => {
      const { url } = await host((_request, response) => response.writeHead(status).end());
      expect(await failure(url)).toMatchObject({
        kind: 'unavailable',
        httpStatus: status,
        retryAfterMs: null,
      });
    },
  );

  test.each([
    ['7', 7000],
    ['Wed, 21 Oct 2026 07:28:30 GMT', 30_000],
    ['Wed, 21 Oct 2026 07:27:00 GMT', 0],
    ['soon', null],
    ['-5', 0],
    ['1.5', 1500],
    ['31536000', 3_600_000],
    ['Sun, 21 Oct 2035 07:28:00 GMT', 3_600_000],
  ])('with Retry-After %s says when, within an hour', async (header, retryAfterMs) => {
    const { url } = await host((_request, response) =>
      response.writeHead(503, { 'Retry-After': header }).end(),
    );
    expect(await failure(url, { ...loopback, now: () => Date.UTC(2026, 9, 21, 7, 28, 0) })).toMatchObject({
      retryAfterMs,
    });
  });

  test('that is labelled with an encoding passes the label on, and its bytes as they are', async () => {
    const { url } = await host((_request, response) =>
      response.writeHead(200, { 'Content-Encoding': 'aws-chunked' }).end('x'),
    );
    const asset = await openAsset(url, loopback);
    expect(asset.contentEncoding).toBe('aws-chunked');
    expect((await asset.body.toArray()).join('')).toBe('x');
  });

  test('206 with the whole file is the file, with a part of it is not', async () => {
    let range = 'bytes 0-9/10';
    const { url } = await host((_request, response) =>
      response.writeHead(206, { 'Content-Range': range, 'Content-Length': 10 }).end('0123456789'),
    );
    expect((await fetchAll(url)).toString()).toBe('0123456789');
    range = 'bytes 0-9/11';
    expect(await failure(url)).toMatchObject({ kind: 'unavailable', httpStatus: 206 });
  });

  test('101 without being asked ends at once, and so does an abort', async () => {
    const { url } = await host((_request, response) => {
      response.socket?.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n');
    });
    expect(await failure(url)).toMatchObject({ kind: 'unavailable' });
  });

  test('that announces too many bytes is not read', async () => {
    const { url } = await host((_request, response) => {
      response.writeHead(200, { 'Content-Length': 1001 });
      response.write('x');
    });
    await expect(openAsset(url, { ...loopback, maxBytes: 1000 })).rejects.toMatchObject({ kind: 'tooLarge' });
  });

  test('that never ends is cut off at the limit', async () => {
    const { url } = await host((_request, response) => {
      const more = (): void => {
        while (response.write(bytes));
      };
      response.on('drain', more);
      more();
    });
    expect(await failure(url, { ...loopback, maxBytes: 5_000_000 })).toMatchObject({ kind: 'tooLarge' });
  });

  test('of exactly the allowed size is fine', async () => {
    const { url } = await host((_request, response) => response.end(bytes));
    expect((await fetchAll(url, { ...loopback, maxBytes: bytes.length })).length).toBe(bytes.length);
  });

  test('that does not come at all is tried again later', async () => {
    const closed = createTcpServer();
    const port = await listen(closed);
    closed.close();
    await once(closed, 'close');
    servers.pop();
    expect(await failure(`http://127.0.0.1:${port}/`)).toMatchObject({
      kind: 'unavailable',
      httpStatus: null,
    });
    const error = await failure('http://nowhere.example.com/', {
      resolve: () => Promise.reject(Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' })),
    });
    expect(error).toMatchObject({ kind: 'unavailable', message: expect.stringContaining('ENOTFOUND') });
  });
});

describe('a slow host', () => {
  const idle = { ...loopback, idleTimeoutMs: 600, connectTimeoutMs: 5000 };

  test('is given up when it does not answer', async () => {
    const { url } = await host(() => {});
    expect(await failure(url, idle)).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('no answer'),
    });
  });

  test('is given up when it stops in the middle', async () => {
    const { url } = await host((_request, response) => {
      response.write('half');
    });
    expect(await failure(url, idle)).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('broke off at byte 4: ETIMEDOUT'),
    });
  });

  test('is given up when it does not even connect', async () => {
    // Takes the connection, but never begins TLS.
    const sockets: Socket[] = [];
    const port = await listen(createTcpServer((socket) => sockets.push(socket)));
    expect(await failure(`https://127.0.0.1:${port}/`, { ...loopback, connectTimeoutMs: 60 })).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('no connection'),
    });
    for (const socket of sockets) socket.destroy();
    const unresolved = { connectTimeoutMs: 60, resolve: () => new Promise<never>(() => {}) };
    expect(await failure('http://cdn.example.com/', unresolved)).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('no connection'),
    });
  });

  test('is given up after the total time, though it always sends a little', async () => {
    const { url } = await host((_request, response) => {
      const timer = setInterval(() => response.write('.'), 10);
      response.on('close', () => clearInterval(timer));
    });
    const error = await failure(url, { ...loopback, totalTimeoutMs: 150, idleTimeoutMs: 5000 });
    expect(error).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('longer than 150 ms'),
    });
  });

  test('is not blamed while nobody reads', async () => {
    const { url } = await host((_request, response) => response.end(bytes));
    const silent = await host(() => {});
    const { body } = await openAsset(url, { ...loopback, idleTimeoutMs: 600 });
    let read = 0;
    for await (const chunk of body) {
      // The reader takes its time: until a host with the same patience has been given up.
      if (read === 0) await failure(silent.url, { ...loopback, idleTimeoutMs: 700 });
      read += (chunk as Buffer).length;
    }
    expect(read).toBe(bytes.length);
  });
});

describe('an abort', () => {
  const reason = new Error('shutting down');

  test('before the start asks nobody', async () => {
    const { url, seen } = await host((_request, response) => response.end());
    await expect(openAsset(url, { ...loopback, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(seen).toEqual([]);
  });

  test('ends the waiting for an answer, with its reason', async () => {
    const controller = new AbortController();
    const { url } = await host(() => controller.abort(reason));
    await expect(openAsset(url, { ...loopback, signal: controller.signal })).rejects.toBe(reason);
  });

  test('ends the reading, with its reason, and lets the host go', async () => {
    const controller = new AbortController();
    const { url, seen } = await host((_request, response) => response.write('half'));
    const { body } = await openAsset(url, { ...loopback, signal: controller.signal });
    const closed = hungUp(seen[0]!);
    body.once('data', () => controller.abort(reason));
    await expect(once(body, 'end')).rejects.toBe(reason);
    await closed;
  });

  test('ends a body that nobody reads', async () => {
    const controller = new AbortController();
    const { url } = await host((_request, response) => response.write('half'));
    const { body } = await openAsset(url, { ...loopback, signal: controller.signal });
    const failed = once(body, 'error');
    controller.abort(reason);
    expect(await failed).toEqual([reason]);
  });
});

describe('a body that breaks off', () => {
  const etag = '"v1"';

  interface Breaking {
    /** Sends up to here, then hangs up; by number of the request, from 0. */
    readonly until: (turn: number, start: number) => number | null;
    readonly headers?: Record<string, string>;
    readonly onResume?: Handler;
  }

  /** Serves `bytes` with ranges, and breaks off. */
  function breaking({ until, headers = { ETag: etag }, onResume }: Breaking): Handler {
    let turn = 0;
    return (request, response) => {
      const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      if (request.headers.range !== undefined && onResume !== undefined) {
        onResume(request, response);
        return;
      }
      response.writeHead(start === 0 ? 200 : 206, {
        ...headers,
        'Content-Length': bytes.length - start,
        ...(start === 0 ? {} : { 'Content-Range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
      });
      const end = until(turn, start);
      turn += 1;
      if (end === null) response.end(bytes.subarray(start));
      else response.write(bytes.subarray(start, end), () => response.destroy());
    };
  }

  test('goes on from the byte reached', async () => {
    const { url, seen } = await host(breaking({ until: (turn) => [100_000, 250_000][turn] ?? null }));
    const asset = await openAsset(url, loopback);
    expect(Buffer.concat((await asset.body.toArray()) as Buffer[]).equals(bytes)).toBe(true);
    expect(asset.resumes()).toBe(2);
    expect(seen.map(({ headers }) => headers['if-range'])).toEqual([undefined, etag, etag]);
    expect(seen.map(({ headers }) => headers.range)).toEqual([undefined, 'bytes=100000-', 'bytes=250000-']);
  });

  test('goes on when the host falls silent', async () => {
    const { url } = await host((request, response) => {
      if (request.headers.range === undefined) {
        response.writeHead(200, { ETag: etag, 'Content-Length': bytes.length });
        response.write(bytes.subarray(0, 1000));
      } else {
        breaking({ until: () => null })(request, response);
      }
    });
    expect((await fetchAll(url, { ...loopback, idleTimeoutMs: 600 })).equals(bytes)).toBe(true);
  });

  test('goes on by a date that is old enough', async () => {
    const headers = { 'Last-Modified': 'Wed, 21 Oct 2015 07:28:00 GMT' };
    const { url, seen } = await host(breaking({ until: (turn) => (turn === 0 ? 1000 : null), headers }));
    expect((await fetchAll(url)).equals(bytes)).toBe(true);
    expect(seen[1]?.headers['if-range']).toBe(headers['Last-Modified']);
  });

  test('carries the key again to the API, and only there', async () => {
    const { url, seen } = await host(breaking({ until: (turn) => (turn === 0 ? 1000 : null) }));
    await fetchAll(`${url}/content`, { ...loopback, api: { baseUrl: url, key: 'sk' } });
    expect(seen.map(({ headers }) => headers.authorization)).toEqual(['Bearer sk', 'Bearer sk']);
  });

  test.each<[string, Record<string, string>]>([
    ['no validator', {}],
    ['a weak one', { ETag: 'W/"v1"' }],
    ['a weak one beside a date', { ETag: 'W/"v1"', 'Last-Modified': 'Wed, 21 Oct 2015 07:28:00 GMT' }],
    ['a date of just now', { 'Last-Modified': new Date().toUTCString() }],
    ['a host without ranges', { ETag: etag, 'Accept-Ranges': 'none' }],
  ])('is not resumed with %s', async (_word, headers) => {
    const { url, seen } = await host(breaking({ until: () => 1000, headers }));
    expect(await failure(url)).toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('broke off at byte 1000 of 300000'),
    });
    expect(seen).toHaveLength(1);
  });

  test.each<[string, Handler, object]>([
    [
      'the whole file again',
      (_q, response) => response.writeHead(200, { ETag: '"v2"' }).end(bytes),
      { kind: 'unavailable' },
    ],
    [
      'another part',
      (_q, response) =>
        response
          .writeHead(206, { ETag: etag, 'Content-Range': `bytes 0-9/${bytes.length}` })
          .end('0123456789'),
      { kind: 'unavailable' },
    ],
    [
      // Each of these would fit in length.
      'a part of another file',
      (_q, response) =>
        response
          .writeHead(206, { ETag: '"v2"', 'Content-Range': 'bytes 1000-299999/300000' })
          .end(bytes.subarray(1000)),
      { kind: 'unavailable', message: expect.stringContaining('changed') },
    ],
    [
      'a part of a file of another length',
      (_q, response) =>
        response
          .writeHead(206, { ETag: etag, 'Content-Range': 'bytes 1000-299999/400000' })
          .end(bytes.subarray(1000)),
      { kind: 'unavailable', message: expect.stringContaining('changed') },
    ],
    ['416', (_q, response) => response.writeHead(416).end(), { kind: 'unavailable' }],
    ['403', (_q, response) => response.writeHead(403).end(), { kind: 'gone' }],
    [
      '503',
      (_q, response) => response.writeHead(503, { 'Retry-After': '3' }).end(),
      { kind: 'unavailable', retryAfterMs: 3000 },
    ],
    [
      'a redirect to a private address',
      (_q, response) => response.writeHead(302, { Location: 'http://10.0.0.1/' }).end(),
      { kind: 'forbiddenHost' },
    ],
  ])('is not joined with %s', async (_word, onResume, expected) => {
    const { url } = await host(breaking({ until: () => 1000, onResume }));
    expect(await failure(url)).toMatchObject(expected);
  });

  test('is resumed a bounded number of times', async () => {
    const { url, seen } = await host(breaking({ until: (_turn, start) => start + 100 }));
    expect(await failure(url, { ...loopback, maxResumes: 3 })).toMatchObject({ kind: 'unavailable' });
    expect(seen).toHaveLength(4);
  });

  test('is not resumed when no byte came since', async () => {
    const { url, seen } = await host(breaking({ until: () => 1000 }));
    expect(await failure(url)).toMatchObject({ kind: 'unavailable' });
    expect(seen).toHaveLength(2);
  });
});

describe('a link', () => {
  test.each([
    ["/a'b.mp4?sig='x'&t=a%27", "/a'b.mp4?sig='x'&t=a%27"],
    ['/v.mp4?a={1}|"2"', '/v.mp4?a={1}|"2"'],
    ['/v%2emp4/%7euser?x=%2f+', '/v%2emp4/%7euser?x=%2f+'],
    ["?sig='x'", "/?sig='x'"],
    ['/v.mp4?x=1#part', '/v.mp4?x=1'],
    ['/f\u00fcr dich.mp4', '/f%C3%BCr%20dich.mp4'],
  ])('%s is asked for byte for byte', async (path, target) => {
    const { url, seen } = await host(answer);
    await fetchAll(`${url}${path}`);
    expect(seen[0]?.url).toBe(target);
  });

  test.each([
    ['/d\u00e9j\u00e0.mp4', '/d%C3%A9j%C3%A0.mp4'],
    ["/v.mp4?sig='x'", "/v.mp4?sig='x'"],
    ["next.mp4?sig='x'", "/a/next.mp4?sig='x'"],
  ])('a redirect to %s goes there', async (location, target) => {
    const { url, seen } = await host((request, response) => {
      if (request.url !== '/a/start') return response.end('ok');
      // Raw UTF-8, as servers send it: Node itself writes headers as Latin-1.
      response.writeHead(302, { location: Buffer.from(location).toString('latin1') }).end();
    });
    expect((await fetchAll(`${url}/a/start`)).toString()).toBe('ok');
    expect(seen[1]?.url).toBe(target);
  });
});

describe('the content link of a task', () => {
  const key = 'key-0123456789';
  const api = async () => {
    const { url, seen } = await host(answer);
    const authorized = () => seen.map(({ headers }) => headers.authorization ?? null);
    return { url, seen, authorized, options: { api: { baseUrl: url, key, taskId: 'task-1' } } };
  };

  test.each([
    '/v1/videos/task-1/content',
    'http://localhost:3000/v1/videos/task-1/content',
    'https://gateway.example/v1/videos/task-1/content',
  ])('%s is asked for at the API with the key, which needs no entry', async (link) => {
    const { seen, authorized, options } = await api();
    expect((await fetchAll(link, options)).toString()).toBe('ok');
    expect(seen.map(({ url }) => url)).toEqual(['/v1/videos/task-1/content']);
    expect(authorized()).toEqual([`Bearer ${key}`]);
  });

  test('of another task gets no key and no open door', async () => {
    const { url, seen, authorized, options } = await api();
    expect(await failure(`${url}/v1/videos/task-2/content`, options)).toMatchObject({
      kind: 'forbiddenHost',
    });
    expect(seen).toEqual([]);
    await fetchAll(`${url}/v1/videos/task-2/content`, { ...options, ...loopback });
    expect(authorized()).toEqual([null]);
  });
});

test('a host that turns away unknown user agents is told the one that is set, and the failure names the setting', async () => {
  const { url } = await host((request, response) =>
    response.writeHead(request.headers['user-agent'] === 'Mozilla/5.0' ? 200 : 403).end('ok'),
  );
  expect((await fetchAll(url, { ...loopback, userAgent: 'Mozilla/5.0' })).toString()).toBe('ok');
  expect((await failure(url)).message).toContain('ARCHIVE_USER_AGENT');
});

describe('in a NAT64 network', () => {
  const resolve =
    (...addresses: string[]) =>
    async () =>
      Promise.resolve(addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })));

  test('a public host at both kinds of address passes both checks', async () => {
    // Nothing answers there: what counts is that the connection is tried.
    const options = { resolve: resolve('64:ff9b::808:808'), connectTimeoutMs: 100 };
    expect(await failure('http://cdn.example/', options)).toMatchObject({ kind: 'unavailable' });
    const both = { resolve: resolve('64:ff9b::808:808', '8.8.8.8'), connectTimeoutMs: 100 };
    expect(await failure('http://cdn.example/', both)).toMatchObject({ kind: 'unavailable' });
  });

  test.each(['64:ff9b::7f00:1', '64:ff9b::a00:1', '64:ff9b:1::808:808'])(
    '%s stays forbidden',
    async (address) => {
      const error = await failure('http://cdn.example/', { resolve: resolve(address) });
      expect(error.kind).toBe('forbiddenHost');
      expect(error.message).not.toContain(address);
      expect(error.detail).toContain(address);
    },
  );
});

test('many redirects and resumes leave no listener behind', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void =>
    void (warning.name.startsWith('MaxListeners') && warnings.push(warning));
  process.on('warning', onWarning);
  const { url } = await host((request, response) => {
    const hop = Number(new URL(request.url!, 'http://x').searchParams.get('hop') ?? 0);
    if (hop < 5) return response.writeHead(302, { location: `/?hop=${hop + 1}` }).end();
    const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
    response.writeHead(from === 0 ? 200 : 206, {
      ETag: '"v"',
      'Content-Length': bytes.length - from,
      ...(from === 0 ? {} : { 'Content-Range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    const to = Math.min(from + 70_000, bytes.length);
    response.write(bytes.subarray(from, to), () => void (to < bytes.length && response.destroy()));
    if (to === bytes.length) response.end();
  });
  const job = new AbortController();
  for (let turn = 0; turn < 12; turn += 1) await fetchAll(url, { ...loopback, signal: job.signal });
  process.off('warning', onWarning);
  expect(warnings).toEqual([]);
});
