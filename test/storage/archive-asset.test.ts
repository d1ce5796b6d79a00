import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { StorageConflictError, StorageError } from '../../src/errors.js';
import { archiveAsset, type ArchiveAssetOptions } from '../../src/storage/archive-asset.js';
import { createLocalStorage } from '../../src/storage/local.js';
import { createS3Storage } from '../../src/storage/s3.js';
import type { Storage } from '../../src/storage/storage.js';
import { downloadOptions } from '../outbound/download-options.js';
import * as files from './fixtures.js';
import { BUCKET, CREDENTIALS, startS3Server } from './s3-server.js';

interface Archive {
  readonly storage: Storage;
  readonly everything: () => Promise<string[]>;
  readonly dispose: () => Promise<void>;
}

async function onDisk(): Promise<Archive> {
  const root = await mkdtemp(join(tmpdir(), 'reelhaul-asset-'));
  return {
    storage: createLocalStorage({ root }),
    everything: async () => {
      const entries = await readdir(root, { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => join(parentPath, name).slice(root.length + 1));
    },
    dispose: () => rm(root, { recursive: true, force: true }),
  };
}

async function inBucket(): Promise<Archive> {
  const server = await startS3Server();
  const storage = createS3Storage({
    bucket: BUCKET,
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: CREDENTIALS,
  });
  return {
    storage,
    everything: server.everything,
    dispose: async () => {
      await storage.close();
      await server.close();
    },
  };
}

/** Sends whole bytes under a wrong name, as hosts do. */
function send(bytes: Buffer): RequestListener {
  return (_request, response) =>
    response.writeHead(200, { 'Content-Type': 'text/html', 'Content-Length': bytes.length }).end(bytes);
}

describe.each([
  ['on the disk', onDisk],
  ['in a bucket', inBucket],
])('an asset archived %s', (_place, create) => {
  let archive: Archive;
  let handler: RequestListener;
  let server: Server;
  let url: string;

  beforeEach(async () => {
    archive = await create();
    server = createServer((request, response) => handler(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/video`;
  });
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    await archive.dispose();
  });

  function haul(
    change: Partial<ArchiveAssetOptions> = {},
    limits: Partial<ArchiveAssetOptions['fetchOptions']> = {},
  ) {
    return archiveAsset({
      storage: archive.storage,
      url,
      kind: 'video',
      keyBase: '2026/01/31/id/video',
      fetchOptions: downloadOptions({
        allowHosts: ['127.0.0.1'],
        maxBytes: 1_000_000,
        idleTimeoutMs: 10_000,
        ...limits,
      }),
      ...change,
    });
  }

  test.each([
    ['mp4', files.mp4MoovAtEnd, 'video', 'video/mp4', 'video.mp4'],
    ['mov', files.mov, 'video', 'video/quicktime', 'video.mov'],
    ['webm', files.webm, 'video', 'video/webm', 'video.webm'],
    ['png', files.png, 'image', 'image/png', 'poster.png'],
    ['jpeg', files.jpeg, 'image', 'image/jpeg', 'poster.jpg'],
    ['webp', files.webp, 'image', 'image/webp', 'poster.webp'],
  ] as const)(
    'is stored whole, a %s named after its bytes',
    async (_name, bytes, kind, contentType, file) => {
      handler = send(bytes);
      const keyBase = `2026/01/31/id/${kind === 'video' ? 'video' : 'poster'}`;
      const asset = await haul({ kind, keyBase });
      expect(asset).toEqual({
        key: `2026/01/31/id/${file}`,
        sizeBytes: bytes.length,
        sha256: createHash('sha256').update(bytes).digest('hex'),
        contentType,
      });
      expect(
        Buffer.concat((await (await archive.storage.read(asset.key)).toArray()) as Buffer[]).equals(bytes),
      ).toBe(true);
      expect(await archive.everything()).toEqual([asset.key]);
    },
  );

  test('may be archived again', async () => {
    handler = send(files.mp4Faststart);
    expect(await haul()).toEqual(await haul());
  });

  test('does not replace another one', async () => {
    handler = send(files.mp4Faststart);
    await haul();
    handler = send(files.mp4MoovAtEnd);
    await expect(haul()).rejects.toThrow(StorageConflictError);
  });

  test('comes whole though the line breaks', async () => {
    const bytes = files.mp4Faststart;
    handler = (request, response) => {
      const { range } = request.headers;
      if (range === undefined) {
        response.writeHead(200, { ETag: '"1"', 'Content-Length': bytes.length });
        response.write(bytes.subarray(0, 1000), () => response.destroy());
      } else {
        response.writeHead(206, {
          ETag: '"1"',
          'Content-Range': `bytes 1000-${bytes.length - 1}/${bytes.length}`,
        });
        response.end(bytes.subarray(1000));
      }
    };
    expect(await haul()).toMatchObject({ sizeBytes: bytes.length });
  });

  const cut = files.mp4MoovAtEnd.subarray(0, 1500);
  test.each<[string, RequestListener, string]>([
    [
      'is cut, and nobody said how long it should be',
      (_q, response) => response.end(cut) && response.flushHeaders(),
      'invalid',
    ],
    [
      'is cut, and the connection closes as if that were its end',
      (request) => request.socket.end(Buffer.concat([Buffer.from('HTTP/1.0 200 OK\r\n\r\n'), cut])),
      'invalid',
    ],
    [
      'is cut before its announced length',
      (_q, response) => {
        response.writeHead(200, { 'Content-Length': files.mp4MoovAtEnd.length });
        response.write(cut, () => response.destroy());
      },
      'unavailable',
    ],
    ['is an error page', send(Buffer.from('<!doctype html><title>Sorry</title>'.repeat(100))), 'invalid'],
    ['is JSON', send(Buffer.from('{"error":{"code":"expired"}}')), 'invalid'],
    ['is empty', send(Buffer.alloc(0)), 'invalid'],
    ['is a picture', send(files.png), 'invalid'],
    [
      'never ends',
      (_q, response) => {
        // A box mdat without a size.
        response.write(files.mp4Faststart.subarray(0, 32));
        response.write(Buffer.from('\0\0\0\0mdat'));
        const more = (): void => {
          while (response.write(Buffer.alloc(10_000)));
        };
        response.on('drain', more);
        more();
      },
      'tooLarge',
    ],
    ['falls silent', (_q, response) => response.write(files.mp4Faststart.subarray(0, 1000)), 'unavailable'],
    ['is expired', (_q, response) => response.writeHead(403).end(), 'gone'],
    [
      'is elsewhere, at a private address',
      (_q, response) => response.writeHead(302, { Location: 'http://10.0.0.1/v' }).end(),
      'forbiddenHost',
    ],
  ])('leaves nothing when it %s', async (_what, listener, kind) => {
    handler = listener;
    // Patience is short only where somebody is to lose it.
    const limits = kind === 'unavailable' ? { idleTimeoutMs: 100 } : {};
    await expect(haul({}, limits)).rejects.toMatchObject({ name: 'AssetError', kind });
    expect(await archive.everything()).toEqual([]);
  });

  test('leaves nothing when it is aborted midway', async () => {
    const controller = new AbortController();
    const reason = new Error('shutting down');
    handler = (_request, response) => {
      response.write(files.mp4Faststart.subarray(0, 1000), () => controller.abort(reason));
    };
    await expect(haul({ signal: controller.signal }, { idleTimeoutMs: 10_000 })).rejects.toBe(reason);
    expect(await archive.everything()).toEqual([]);
  });
});

test('an asset that cannot be stored lets its host go, and says that it is the storage', async () => {
  const root = await mkdtemp(join(tmpdir(), 'reelhaul-asset-'));
  await writeFile(join(root, 'archive'), 'a file, not a directory');
  let hungUp: Promise<unknown> = Promise.resolve();
  const server = createServer((request, response) => {
    hungUp = new Promise<void>((resolve) => {
      request.socket.once('close', () => resolve());
    });
    response.write(files.mp4Faststart.subarray(0, 1000));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const outcome = archiveAsset({
    storage: createLocalStorage({ root: join(root, 'archive') }),
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    kind: 'video',
    keyBase: 'id/video',
    fetchOptions: downloadOptions({ allowHosts: ['127.0.0.1'], maxBytes: 1_000_000 }),
  });
  await expect(outcome).rejects.toThrow(StorageError);
  await hungUp;
  expect(await readFile(join(root, 'archive'), 'utf8')).toBe('a file, not a directory');
  server.close();
  await rm(root, { recursive: true });
});

describe('bytes that are labelled with an encoding', () => {
  const bytes = files.mp4MoovAtEnd;
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'reelhaul-encoded-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  async function haul(sent: Buffer, encoding: string | null, onTrailingBytes = (_sizeBytes: number) => {}) {
    const server = createServer((_request, response) =>
      response
        .writeHead(200, {
          'Content-Length': sent.length,
          ...(encoding === null ? {} : { 'Content-Encoding': encoding }),
        })
        .end(sent),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      return await archiveAsset({
        storage: createLocalStorage({ root }),
        url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/video`,
        kind: 'video',
        keyBase: 'a/video',
        fetchOptions: downloadOptions({ allowHosts: ['127.0.0.1'], maxBytes: 1_000_000 }),
        onTrailingBytes,
      });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
  const digest = createHash('sha256').update(bytes).digest('hex');

  test.each<[string, Buffer, string | null]>([
    ['plain, labelled aws-chunked', bytes, 'aws-chunked'],
    ['plain, labelled gzip', bytes, 'gzip'],
    ['plain, labelled br', bytes, 'br'],
    ['plain, labelled utf-8', bytes, 'utf-8'],
    ['gzip, labelled so', gzipSync(bytes), 'gzip'],
    ['gzip, labelled aws-chunked', gzipSync(bytes), 'aws-chunked'],
    ['gzip, not labelled', gzipSync(bytes), null],
    ['deflate', deflateSync(bytes), 'deflate'],
    ['brotli', brotliCompressSync(bytes), 'br'],
  ])('%s: the video is stored as it is', async (_name, sent, encoding) => {
    expect(await haul(sent, encoding)).toMatchObject({ sha256: digest, sizeBytes: bytes.length });
  });

  test('are refused when they are broken, or more than allowed once undone', async () => {
    await expect(haul(gzipSync(bytes).subarray(0, -20), 'gzip')).rejects.toMatchObject({ kind: 'invalid' });
    await expect(haul(gzipSync(Buffer.from('<html>')), 'gzip')).rejects.toMatchObject({ kind: 'invalid' });
    await expect(haul(Buffer.alloc(0), 'gzip')).rejects.toMatchObject({ kind: 'invalid' });
    const bomb = gzipSync(Buffer.concat([bytes, Buffer.alloc(2_000_000)]));
    await expect(haul(bomb, 'gzip')).rejects.toMatchObject({
      code: expect.stringMatching(/too_large|invalid/),
    });
    expect(
      await readdir(root, { recursive: true }).then((names) => names.filter((n) => n.endsWith('.mp4'))),
    ).toEqual([]);
  });

  test('a few bytes behind a whole video are kept and told', async () => {
    const told: number[] = [];
    const padded = Buffer.concat([bytes, Buffer.alloc(13)]);
    const stored = await haul(padded, null, (sizeBytes) => told.push(sizeBytes));
    expect(stored.sizeBytes).toBe(padded.length);
    expect(told).toEqual([13]);
  });
});
