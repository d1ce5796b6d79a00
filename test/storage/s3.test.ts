import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { InvalidInputError, StorageConflictError, StorageError } from '../../src/errors.js';
import type { S3StorageOptions } from '../../src/storage/s3-options.js';
import { createS3Storage } from '../../src/storage/s3.js';
import type { Storage } from '../../src/storage/storage.js';
import { describeStorage, endlessStream, streamOf } from './contract.js';
import { BUCKET, CREDENTIALS, startS3Server, type S3Server } from './s3-server.js';

/** Children run what `tsc` made, as users do. */
const compiled = new URL('../../dist/src/storage/s3.js', import.meta.url).href;
const type = { contentType: 'video/mp4' };
/** Two whole parts and a bit. */
const LARGE = 11_000_000;

function open(server: S3Server, options: Partial<S3StorageOptions> = {}): Storage {
  return createS3Storage({
    bucket: BUCKET,
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: CREDENTIALS,
    ...options,
  });
}

describeStorage(
  'S3',
  async () => {
    const server = await startS3Server();
    return { storage: open(server), everything: server.everything, dispose: () => server.close() };
  },
  { largeBytes: LARGE },
);

describeStorage(
  'S3 with a prefix, with CRC checksums, on a server that ignores conditions',
  async () => {
    const server = await startS3Server();
    server.setConditional(false);
    return {
      storage: open(server, { prefix: 'archive/of/us', partsAtOnce: 1, checksums: true }),
      everything: async () =>
        (await server.everything()).map((key) => {
          expect(key).toMatch(/^(upload of )?archive\/of\/us\//);
          return key.replace('archive/of/us/', '');
        }),
      dispose: () => server.close(),
    };
  },
  { largeBytes: LARGE },
);

describe('S3', () => {
  let server: S3Server;
  let storage: Storage;
  beforeEach(async () => {
    server = await startS3Server();
    storage = open(server);
  });
  afterEach(async () => {
    await storage.close();
    await server.close();
  });

  test.each([
    ['small', 100],
    ['large', LARGE],
  ])('lets exactly one of two writers of different %s files win', async (_word, sizeBytes) => {
    const outcomes = await Promise.allSettled(
      [1, 2].map(() => storage.put('k', streamOf([randomBytes(sizeBytes)]), type)),
    );
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(StorageConflictError);
    }
    expect(await server.everything()).toEqual(['k']);
  });

  test('sends content type, cache header, encryption and storage class', async () => {
    const wanted = open(server, {
      sse: 'aws:kms',
      sseKmsKeyId: 'key-1',
      storageClass: 'STANDARD_IA',
      cacheControl: 'no-store',
    });
    await wanted.put('small', streamOf([Buffer.from('x')]), type);
    await wanted.put('large', streamOf([randomBytes(LARGE)]), type);
    await wanted.close();
    for (const pattern of [/^PUT .*\/small/, /^POST .*\/large\?uploads/]) {
      expect(server.headersOf(pattern)).toMatchObject({
        'content-type': 'video/mp4',
        'cache-control': 'no-store',
        'x-amz-server-side-encryption': 'aws:kms',
        'x-amz-server-side-encryption-aws-kms-key-id': 'key-1',
        'x-amz-storage-class': 'STANDARD_IA',
      });
    }
    expect(server.headersOf(/^PUT .*\/small/)).toMatchObject({ 'if-none-match': '*' });
    expect(server.headersOf(/^POST .*\/large\?uploadId/)).toMatchObject({ 'if-none-match': '*' });
  });

  test('does not say If-None-Match when told so', async () => {
    const plain = open(server, { conditionalWrites: false });
    await plain.put('small', streamOf([Buffer.from('x')]), type);
    await plain.close();
    expect(server.headersOf(/^PUT .*\/small/)).not.toHaveProperty('if-none-match');
  });

  test('gives a link that works without credentials, for a while', async () => {
    await storage.put('a/vidéo 1.mp4', streamOf([Buffer.from('film')]), type);
    const url = await storage.urlFor!('a/vidéo 1.mp4', { expiresInSeconds: 60 });
    const answer = await fetch(url);
    expect(await answer.text()).toBe('film');
    expect(answer.headers.get('content-type')).toBe('video/mp4');
    expect(new URL(url).searchParams.get('X-Amz-Expires')).toBe('60');
    expect(url).toMatch(/[?&]X-Amz-Signature=[0-9a-f]{64}/);
    for (const expiresInSeconds of [0, -1, 1.5, 604_801, Number.NaN]) {
      await expect(storage.urlFor!('k', { expiresInSeconds })).rejects.toThrow(InvalidInputError);
    }
  });

  test.each([
    ['NoSuchBucket', 404, false, /does not exist/],
    ['AccessDenied', 403, false, /access is denied/],
    ['InvalidAccessKeyId', 403, false, /access key is not known/],
    ['NotImplemented', 501, false, /conditionalWrites=false/],
    ['SlowDown', 503, true, /SlowDown/],
    ['InternalError', 500, true, /InternalError/],
    ['XMinioStorageFull', 507, true, /XMinioStorageFull/],
    ['ConditionalRequestConflict', 409, true, /ConditionalRequestConflict/],
  ])('tells by the error %s whether waiting helps', async (code, status, retryable, message) => {
    server.setFault(({ method }) => (method === 'PUT' ? { status, code } : null));
    const outcome = storage.put('k', streamOf([Buffer.from('x')]), type);
    await expect(outcome).rejects.toThrow(StorageError);
    await expect(outcome).rejects.toMatchObject({ retryable, message: expect.stringMatching(message) });
    await expect(storage.probe()).rejects.toMatchObject({ name: 'StorageError', retryable });
  });

  test('says which bucket does not exist', async () => {
    const elsewhere = open(server, { bucket: 'nobodys' });
    await expect(elsewhere.probe()).rejects.toMatchObject({
      name: 'StorageError',
      retryable: false,
      message: expect.stringContaining('s3://nobodys/'),
    });
    await elsewhere.close();
  });

  test('waits for a server that is down', async () => {
    const { endpoint } = server;
    const away = createS3Storage({
      bucket: BUCKET,
      endpoint,
      forcePathStyle: true,
      credentials: CREDENTIALS,
    });
    server.setFault(() => 'hangUp');
    await expect(away.put('k', streamOf([Buffer.from('x')]), type)).rejects.toMatchObject({
      name: 'StorageError',
      retryable: true,
    });
    server.setFault(null);
    expect(await away.put('k', streamOf([Buffer.from('x')]), type)).toMatchObject({ sizeBytes: 1 });
    await away.close();
  });

  test.each(['switch', 'silence'] as const)('ends a request that is answered with %s', async (fault) => {
    const { endpoint } = server;
    const options = { bucket: BUCKET, endpoint, forcePathStyle: true, credentials: CREDENTIALS };
    const hasty = createS3Storage({ ...options, requestTimeoutMs: 200 });
    server.setFault(() => fault);
    for (const call of [() => hasty.probe(), () => hasty.put('k', streamOf([Buffer.from('x')]), type)])
      await expect(call()).rejects.toMatchObject({ name: 'StorageError', retryable: true });
    server.setFault(null);
    await hasty.close();
  });

  test('clears away the parts when a part is refused', async () => {
    server.setFault(({ url }) =>
      /partNumber=2/.test(url ?? '') ? { status: 403, code: 'AccessDenied' } : null,
    );
    for (const source of [streamOf([randomBytes(LARGE)]), endlessStream()]) {
      await expect(storage.put('k', source, type)).rejects.toMatchObject({
        name: 'StorageError',
        retryable: false,
      });
      expect(source.destroyed).toBe(true);
    }
    expect(await server.everything()).toEqual([]);
  });

  test('does not wait for parts on their way when it is aborted', async () => {
    const controller = new AbortController();
    const reason = new Error('shutting down');
    server.setFault(({ url }) => {
      if (!/partNumber/.test(url ?? '')) return null;
      controller.abort(reason);
      return 'silence';
    });
    const outcome = storage.put('k', endlessStream(), { ...type, signal: controller.signal });
    await expect(outcome).rejects.toBe(reason);
    expect(await server.everything()).toEqual([]);
  });

  test('says nothing of a failed clearing; the sweep finds what is left', async () => {
    server.setFault(({ url, method }) =>
      /partNumber=2/.test(url ?? '') || method === 'DELETE' ? { status: 403, code: 'AccessDenied' } : null,
    );
    await expect(storage.put('k', streamOf([randomBytes(LARGE)]), type)).rejects.toThrow(StorageError);
    expect(await server.everything()).toEqual(['upload of k']);
    server.setFault(null);
    expect(await storage.removeAbandoned(-60_000)).toBe(1);
    expect(await server.everything()).toEqual([]);
  });

  test('leaves abandoned uploads to servers that cannot list them', async () => {
    server.setFault(({ url }) =>
      /[?&]uploads/.test(url ?? '') ? { status: 501, code: 'NotImplemented' } : null,
    );
    expect(await storage.removeAbandoned(0)).toBe(0);
  });

  test('that may not list uploads says so, and the rest is tidied all the same', async () => {
    const leaving = open(server, {});
    server.setFault(({ url, method }) =>
      method === 'DELETE' && /reelhaul-probe/.test(url ?? '') ? { status: 403, code: 'AccessDenied' } : null,
    );
    await expect(leaving.probe()).rejects.toThrow(StorageError);
    server.setFault(({ url }) =>
      /[?&]uploads/.test(url ?? '') ? { status: 403, code: 'AccessDenied' } : null,
    );
    const problems: string[] = [];
    expect(await leaving.removeAbandoned(-60_000, ({ message }) => problems.push(message))).toBe(1);
    expect(problems.join()).toMatch(/unfinished uploads of .* access is denied/);
    await leaving.close();
  });

  test('a clock of this machine that is far ahead abandons nothing', async () => {
    server.setFault(({ method }) => (method === 'DELETE' ? { status: 403, code: 'AccessDenied' } : null));
    await expect(storage.probe()).rejects.toThrow(StorageError);
    server.setFault(null);
    const now = Date.now;
    Date.now = () => now() + 60_000;
    try {
      expect(await storage.removeAbandoned(30_000)).toBe(0);
    } finally {
      Date.now = now;
    }
  });

  test('removes what killed writers left behind under its prefix, once it is old enough', async () => {
    const script = `
      import { createS3Storage } from ${JSON.stringify(compiled)};
      import { Readable } from 'node:stream';
      const storage = createS3Storage({
        bucket: ${JSON.stringify(BUCKET)},
        prefix: process.argv[1],
        endpoint: ${JSON.stringify(server.endpoint)},
        forcePathStyle: true,
        credentials: ${JSON.stringify(CREDENTIALS)},
      });
      const silent = new Readable({ read() {} });
      silent.push(Buffer.alloc(${LARGE}, 1));
      storage.put('a/video.mp4', silent, { contentType: 'video/mp4' });
      setInterval(() => {}, 1000);
    `;
    const partsArrived = new Promise<void>((resolve) => {
      let parts = 0;
      server.setFault(({ url, method }) => {
        if (method === 'PUT' && /partNumber/.test(url ?? '')) parts += 1;
        if (parts === 6) resolve();
        return null;
      });
    });
    const children = ['ours', 'ours/deep', 'theirs'].map((prefix) =>
      spawn(process.execPath, ['--input-type=module', '-e', script, prefix], {
        stdio: ['ignore', 'ignore', 'inherit'],
      }),
    );
    await partsArrived;
    for (const child of children) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    const left = ['ours/a/video.mp4', 'ours/deep/a/video.mp4', 'theirs/a/video.mp4'].map(
      (key) => `upload of ${key}`,
    );
    expect(await server.everything()).toEqual(left);

    const ours = open(server, { prefix: 'ours' });
    expect(await ours.stat('a/video.mp4')).toBeNull();
    expect(await ours.removeAbandoned(600_000)).toBe(0);
    expect(await server.everything()).toEqual(left);
    expect(await ours.removeAbandoned(-50_000)).toBe(2);
    expect(await server.everything()).toEqual(['upload of theirs/a/video.mp4']);
    await ours.put('a/video.mp4', streamOf([Buffer.from('whole')]), type);
    await ours.close();
  });

  test('keeps no more in memory than a few parts', async () => {
    let produced = 0;
    const firstPart = new Promise<void>((resolve) => {
      server.setFault(({ url }) => {
        if (/partNumber/.test(url ?? '')) resolve();
        return null;
      });
    });
    // Endless, and faster than any server.
    const source = new Readable({
      highWaterMark: 1024 * 1024,
      read() {
        produced += 1024 * 1024;
        this.push(Buffer.alloc(1024 * 1024));
      },
    });
    const controller = new AbortController();
    const outcome = storage.put('k', source, { ...type, signal: controller.signal });
    await firstPart;
    controller.abort(new Error('enough'));
    await expect(outcome).rejects.toThrow('enough');
    expect(produced).toBeLessThan(40 * 1024 * 1024);
    expect(await server.everything()).toEqual([]);
  });
});
