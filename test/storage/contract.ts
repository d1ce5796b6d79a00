/**
 * What every storage promises (`src/storage/storage.ts`), as one suite that each driver runs.
 */
import { createHash, randomBytes } from 'node:crypto';
import { PassThrough, pipeline, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { InvalidInputError, StorageConflictError, StorageError } from '../../src/errors.js';
import type { Storage } from '../../src/storage/storage.js';
import { until } from '../support/until.js';

export interface StorageUnderTest {
  readonly storage: Storage;
  /** Every file there is, visible or not: keys, partial files, unfinished uploads. */
  readonly everything: () => Promise<string[]>;
  readonly dispose: () => Promise<void>;
}

export interface StorageTraits {
  /** A file of so many bytes is written in several steps. */
  readonly largeBytes: number;
}

const type = { contentType: 'application/octet-stream' };

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A stream that never ends, in pieces of 1 MB; errors pass through it as through a pipeline. */
export function endlessStream(): Readable {
  const source = new Readable({
    read() {
      this.push(Buffer.alloc(1_000_000));
    },
  });
  const through = new PassThrough();
  pipeline(source, through, () => {});
  return through;
}

/** A stream that gives these pieces and then, if there is one, fails. */
export function streamOf(pieces: readonly Buffer[], failure?: Error): Readable {
  return Readable.from(
    (async function* () {
      yield* pieces;
      if (failure !== undefined) throw failure;
    })(),
    { objectMode: false },
  );
}

async function bytesOf(stream: Readable): Promise<Buffer> {
  return Buffer.concat((await stream.toArray()) as Buffer[]);
}

export function describeStorage(
  name: string,
  create: () => Promise<StorageUnderTest>,
  traits: StorageTraits,
): void {
  describe(`${name} keeps the contract of a storage`, () => {
    let under: StorageUnderTest;
    let storage: Storage;
    beforeEach(async () => {
      under = await create();
      storage = under.storage;
    });
    afterEach(async () => {
      await storage.close();
      await under.dispose();
    });

    test.each([
      ['small', 5000],
      ['empty', 0],
      ['large', traits.largeBytes],
    ])('stores a %s file and gives it back, with its size and hash', async (_word, sizeBytes) => {
      const bytes = randomBytes(sizeBytes);
      const stored = await storage.put('a/b/video.mp4', streamOf([bytes]), type);
      expect(stored).toEqual({ key: 'a/b/video.mp4', sizeBytes, sha256: sha256(bytes) });
      expect(await storage.stat('a/b/video.mp4')).toEqual({ sizeBytes });
      expect((await bytesOf(await storage.read('a/b/video.mp4'))).equals(bytes)).toBe(true);
      expect(await under.everything()).toEqual(['a/b/video.mp4']);
    });

    test('reads a range, both ends included', async () => {
      await storage.put('k', streamOf([Buffer.from('0123456789')]), type);
      expect((await bytesOf(await storage.read('k', { start: 2, end: 5 }))).toString()).toBe('2345');
      expect((await bytesOf(await storage.read('k', { start: 9, end: 9 }))).toString()).toBe('9');
    });

    test('takes names with spaces, accents and signs', async () => {
      const key = 'mandant ä/clip+1 & co=100%/vidéo #2?.mp4';
      await storage.put(key, streamOf([Buffer.from('x')]), type);
      expect(await storage.stat(key)).toEqual({ sizeBytes: 1 });
      expect((await bytesOf(await storage.read(key))).toString()).toBe('x');
      expect(await under.everything()).toEqual([key]);
    });

    test('keeps a file that is put again with the same bytes', async () => {
      const bytes = randomBytes(traits.largeBytes);
      const first = await storage.put('k', streamOf([bytes]), type);
      expect(await storage.put('k', streamOf([bytes]), type)).toEqual(first);
      expect(await under.everything()).toEqual(['k']);
    });

    test.each([
      ['other bytes of the same size', 'BBBB'],
      ['fewer bytes', 'AA'],
      ['no bytes', ''],
      ['more bytes', 'AAAAAAAA'],
    ])('never replaces a file by %s', async (_word, other) => {
      await storage.put('k', streamOf([Buffer.from('AAAA')]), type);
      const source = streamOf([Buffer.from(other)]);
      await expect(storage.put('k', source, type)).rejects.toThrow(StorageConflictError);
      expect(source.destroyed).toBe(true);
      expect((await bytesOf(await storage.read('k'))).toString()).toBe('AAAA');
      expect(await under.everything()).toEqual(['k']);
    });

    test.each([
      ['at once', 0],
      ['after a few bytes', 10],
      ['after many bytes', traits.largeBytes],
    ])('shows nothing when the source fails %s, and passes its error on', async (_word, sizeBytes) => {
      const failure = new Error('broken source');
      const source = streamOf(sizeBytes === 0 ? [] : [randomBytes(sizeBytes)], failure);
      await expect(storage.put('k', source, type)).rejects.toBe(failure);
      expect(await storage.stat('k')).toBeNull();
      expect(await under.everything()).toEqual([]);
    });

    test('passes a network error of the source on, and does not take it for its own', async () => {
      const failure = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });
      await expect(storage.put('k', streamOf([randomBytes(10)], failure), type)).rejects.toBe(failure);
    });

    test('passes the error on of a source that failed before it was read', async () => {
      const failure = new Error('broken source');
      const source = new PassThrough();
      source.on('error', () => {});
      source.destroy(failure);
      await expect(storage.put('k', source, type)).rejects.toBe(failure);
      expect(await under.everything()).toEqual([]);
    });

    test('stores nothing of a source that was closed before its end', async () => {
      const source = new PassThrough();
      source.write('half', () => source.destroy());
      await expect(storage.put('k', source, type)).rejects.toThrow();
      expect(await under.everything()).toEqual([]);
    });

    test('leaves the old file when a source for its key fails', async () => {
      await storage.put('k', streamOf([Buffer.from('old')]), type);
      const failure = new Error('broken source');
      await expect(storage.put('k', streamOf([Buffer.from('new')], failure), type)).rejects.toBe(failure);
      expect((await bytesOf(await storage.read('k'))).toString()).toBe('old');
    });

    test.each([
      ['few', 10],
      ['many', traits.largeBytes],
    ])(
      'shows nothing when it is aborted after %s bytes, and rejects with the reason',
      async (_word, sizeBytes) => {
        const controller = new AbortController();
        const reason = new Error('enough');
        const pieces = [randomBytes(sizeBytes)];
        // After its bytes it would stay silent for ever.
        const source = new Readable({
          read() {
            const piece = pieces.pop();
            if (piece === undefined) controller.abort(reason);
            else this.push(piece);
          },
        });
        await expect(storage.put('k', source, { ...type, signal: controller.signal })).rejects.toBe(reason);
        expect(source.destroyed).toBe(true);
        expect(await storage.stat('k')).toBeNull();
        expect(await under.everything()).toEqual([]);
      },
    );

    test('does not begin when it was aborted before', async () => {
      const reason = new Error('never mind');
      const source = streamOf([Buffer.from('x')]);
      await expect(storage.put('k', source, { ...type, signal: AbortSignal.abort(reason) })).rejects.toBe(
        reason,
      );
      expect(source.destroyed).toBe(true);
      expect(await under.everything()).toEqual([]);
    });

    test.each([
      '',
      '/',
      '/etc/passwd',
      '../x',
      'a/../../x',
      'a//b',
      'a/./b',
      'a/',
      '.',
      '..',
      'a\\..\\b',
      'a\0b',
      'a\nb',
    ])('refuses the key %j everywhere', async (key) => {
      const source = streamOf([Buffer.from('x')]);
      await expect(storage.put(key, source, type)).rejects.toThrow(InvalidInputError);
      expect(source.destroyed).toBe(true);
      await expect(storage.stat(key)).rejects.toThrow(InvalidInputError);
      await expect(storage.read(key)).rejects.toThrow(InvalidInputError);
      await expect(storage.remove(key)).rejects.toThrow(InvalidInputError);
      expect(await under.everything()).toEqual([]);
    });

    test('removes a file, and is content when there is none', async () => {
      await storage.put('a/b/k', streamOf([Buffer.from('x')]), type);
      await storage.put('a/other', streamOf([Buffer.from('x')]), type);
      await storage.remove('a/b/k');
      await storage.remove('a/b/k');
      expect(await storage.stat('a/b/k')).toBeNull();
      expect(await under.everything()).toEqual(['a/other']);
    });

    test('says that there is nothing to look up or to read', async () => {
      expect(await storage.stat('nothing/here')).toBeNull();
      await expect(storage.read('nothing/here')).rejects.toThrow(StorageError);
      await expect(storage.read('nothing/here')).rejects.toMatchObject({ retryable: false });
    });

    test('of two writers of the same bytes at once, both are content', async () => {
      const bytes = randomBytes(traits.largeBytes);
      const [one, two] = await Promise.all([
        storage.put('k', streamOf([bytes]), type),
        storage.put('k', streamOf([bytes]), type),
      ]);
      expect(one).toEqual(two);
      expect(await under.everything()).toEqual(['k']);
    });

    test('probes by writing, reading and removing, and leaves nothing', async () => {
      await storage.probe();
      expect(await under.everything()).toEqual([]);
    });

    test('has nothing abandoned to remove when every write came to its end', async () => {
      await storage.put('k', streamOf([Buffer.from('x')]), type);
      expect(await storage.removeAbandoned(0)).toBe(0);
      expect(await under.everything()).toEqual(['k']);
    });

    test('does not take away what it is writing itself', async () => {
      const bytes = randomBytes(traits.largeBytes);
      let removed: number | null = null;
      const source = Readable.from(
        (async function* () {
          yield bytes;
          await until(async () => (await under.everything()).length > 0, 'the first bytes to be down');
          removed = await storage.removeAbandoned(-60_000);
          yield Buffer.from('end');
        })(),
        { objectMode: false },
      );
      await storage.put('k', source, type);
      expect(removed).toBe(0);
      expect(await storage.stat('k')).toEqual({ sizeBytes: bytes.length + 3 });
    });
  });
}
