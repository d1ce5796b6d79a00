import { createHash } from 'node:crypto';
import { PassThrough, Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { AssetError } from '../../src/outbound/asset-error.js';
import type { AssetKind } from '../../src/media/sniff.js';
import { verify as verifyStream, type VerifierOptions } from '../../src/media/verify.js';
import * as files from '../storage/fixtures.js';

interface Verdict {
  readonly bytes: Buffer;
  readonly result: {
    readonly contentType: string;
    readonly extension: string;
    readonly sizeBytes: number;
    readonly sha256: string;
  };
}

/** Sends the pieces through a verifier. */
async function verify(
  pieces: readonly Buffer[],
  { kind = 'video', expectedBytes = null, maxBytes = 1_000_000 }: Partial<VerifierOptions> = {},
): Promise<Verdict> {
  const { stream, type, sizeBytes } = verifyStream(Readable.from(pieces, { objectMode: false }), {
    kind,
    expectedBytes,
    maxBytes,
  });
  const bytes = Buffer.concat(await stream.toArray());
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const { contentType, extension } = await type;
  return { bytes, result: { contentType, extension, sizeBytes: sizeBytes(), sha256 } };
}

/** A verdict that can be compared, good or bad. */
function settled(verdict: Promise<Verdict>): Promise<unknown> {
  return verdict.then(
    ({ bytes, result }) => ({ result, hex: bytes.toString('hex') }),
    (error: AssetError) => ({ kind: error.kind, message: error.message }),
  );
}

async function* endlessVideo(): AsyncGenerator<Buffer> {
  yield files.mp4Faststart.subarray(0, 900);
  for (;;) yield Buffer.alloc(1000);
}

const videos = [
  ['mp4Faststart', files.mp4Faststart, 'video/mp4', 'mp4'],
  ['mp4MoovAtEnd', files.mp4MoovAtEnd, 'video/mp4', 'mp4'],
  ['mp4Fragmented', files.mp4Fragmented, 'video/mp4', 'mp4'],
  ['mov', files.mov, 'video/quicktime', 'mov'],
  ['webm', files.webm, 'video/webm', 'webm'],
  ['webmLive', files.webmLive, 'video/webm', 'webm'],
] as const;
const images = [
  ['png', files.png, 'image/png', 'png'],
  ['jpeg', files.jpeg, 'image/jpeg', 'jpg'],
  ['webp', files.webp, 'image/webp', 'webp'],
] as const;
const all = [
  ...videos.map((row) => [...row, 'video'] as const),
  ...images.map((row) => [...row, 'image'] as const),
];

describe('a verifier', () => {
  test.each(all)(
    'lets a whole %s through unchanged and says what it is',
    async (_name, bytes, contentType, extension, kind) => {
      const verdict = await verify([bytes], { kind, expectedBytes: bytes.length, maxBytes: bytes.length });
      expect(verdict.bytes.equals(bytes)).toBe(true);
      expect(verdict.result).toEqual({
        contentType,
        extension,
        sizeBytes: bytes.length,
        sha256: createHash('sha256').update(bytes).digest('hex'),
      });
    },
  );

  /** Lengths at which nothing in the file tells that it is cut: whole fragments. */
  const untold: Readonly<Record<string, readonly number[]>> = { mp4Fragmented: [1766, 2134, 2439] };

  test.each(all)('refuses a %s that is cut anywhere', async (name, bytes, _type, _extension, kind) => {
    const accepted: number[] = [];
    for (let length = 0; length < bytes.length; length += 1) {
      const error: unknown = await verify([bytes.subarray(0, length)], { kind }).then(
        () => null,
        (error: unknown) => error,
      );
      if (error === null) accepted.push(length);
      else if (!(error instanceof AssetError) || error.kind !== 'invalid') throw error;
    }
    expect(accepted).toEqual(untold[name] ?? []);
  });

  test('comes to the same verdict however the bytes are cut into pieces', async () => {
    const sources = all.map(([, bytes, , , kind]) => ({ bytes, kind }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...sources),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 40 }),
        fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
        async ({ bytes: whole, kind }, sizes, share) => {
          const bytes = share === null ? whole : whole.subarray(0, Math.floor(share * whole.length));
          const pieces: Buffer[] = [];
          for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
            const size = sizes[turn % sizes.length]!;
            pieces.push(bytes.subarray(at, at + size));
            at += size;
          }
          expect(await settled(verify(pieces, { kind }))).toEqual(await settled(verify([bytes], { kind })));
        },
      ),
      { numRuns: 300 },
    );
  });

  test('never fails in any other way, whatever the bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...all.map(([, bytes, , , kind]) => ({ bytes, kind }))),
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
        async ({ bytes: whole, kind }, changes) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of changes) bytes[at % bytes.length] = value;
          const error: unknown = await verify([bytes], { kind }).then(
            () => null,
            (error: unknown) => error,
          );
          if (error !== null) expect(error).toMatchObject({ name: 'AssetError', kind: 'invalid' });
        },
      ),
      { numRuns: 500 },
    );
  });

  const html = Buffer.from('<!DOCTYPE html><html><body>Link expired</body></html>'.padEnd(3000));
  test.each<[string, Buffer, AssetKind, RegExp]>([
    ['nothing', Buffer.alloc(0), 'video', /no bytes at all/],
    ['an HTML page', html, 'video', /got an HTML page/],
    [
      'an HTML page after a byte order mark',
      Buffer.concat([Buffer.from('\uFEFF\n'), html]),
      'video',
      /got an HTML page/,
    ],
    ['an HTML page as picture', html, 'image', /Expected an image, got an HTML page/],
    ['an XML error', Buffer.from('<?xml version="1.0"?><Error>'), 'video', /got XML or HTML/],
    ['JSON', Buffer.from(' {"error":"expired"}'), 'video', /got JSON/],
    ['text', Buffer.from('Not found\n'), 'video', /the text "Not found/],
    ['zeros', Buffer.alloc(5000), 'video', /begin with 0000000000000000/],
    ['a picture as video', files.png, 'video', /Expected a video, got image\/png/],
    ['a video as picture', files.mp4Faststart, 'image', /Expected an image, got video\/mp4/],
    [
      'an AVIF',
      Buffer.concat([Buffer.from('\0\0\0\x20ftypavif'), Buffer.alloc(100)]),
      'video',
      /Expected a video/,
    ],
    [
      'Matroska',
      Buffer.from(files.webm.toString('latin1').replace('webm', 'mkvx'), 'latin1'),
      'video',
      /"mkvx"/,
    ],
  ])('refuses %s and says what came instead', async (_name, bytes, kind, message) => {
    await expect(verify([bytes], { kind })).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringMatching(message),
    });
  });

  test('refuses a whole file of another length than was announced', async () => {
    const bytes = files.webp;
    const longer = Buffer.concat([bytes, Buffer.alloc(7)]);
    await expect(verify([longer], { kind: 'image', expectedBytes: bytes.length })).rejects.toMatchObject({
      kind: 'invalid',
    });
    await expect(verify([bytes], { kind: 'image', expectedBytes: bytes.length + 1 })).rejects.toMatchObject({
      kind: 'invalid',
    });
  });

  test('refuses more bytes than allowed without waiting for the end', async () => {
    const source = Readable.from(endlessVideo());
    const { stream } = verifyStream(source, { kind: 'video', expectedBytes: null, maxBytes: 1500 });
    await expect(stream.toArray()).rejects.toMatchObject({ kind: 'tooLarge' });
    expect(source.destroyed).toBe(true);
  });

  test('tells the type before any byte comes out', async () => {
    const source = new PassThrough();
    const { stream, type } = verifyStream(source, { kind: 'video', expectedBytes: null, maxBytes: 10_000 });
    source.write(files.mov.subarray(0, 40));
    await nextTurn();
    expect(stream.readableLength).toBe(0);
    source.write(files.mov.subarray(40, 80));
    await expect(type).resolves.toMatchObject({ contentType: 'video/quicktime', extension: 'mov' });
    stream.destroy();
    expect(source.destroyed).toBe(true);
  });

  test('lets the source wait while nobody reads, and keeps every byte', async () => {
    const piece = Buffer.alloc(32 * 1024);
    let given = 0;
    async function* pieces(): AsyncGenerator<Buffer> {
      yield files.mp4MoovAtEnd;
      for (; given < 100; given += 1) yield await Promise.resolve(piece);
    }
    const source = Readable.from(pieces(), { objectMode: false, highWaterMark: piece.length });
    const { stream, type } = verifyStream(source, { kind: 'video', expectedBytes: null, maxBytes: 1e9 });
    await type;
    for (let turn = 0; turn < 200; turn += 1) await nextTurn();
    expect(given).toBeLessThan(10);
    // What is not read is not lost: it ends as what it is, a video with rubbish behind it.
    await expect(stream.toArray()).rejects.toMatchObject({ kind: 'invalid' });
  });

  test('tells those who wait for the type when the source broke', async () => {
    const source = new PassThrough();
    const { stream, type } = verifyStream(source, { kind: 'video', expectedBytes: null, maxBytes: 10_000 });
    const failure = new Error('broken');
    stream.on('error', () => {});
    source.destroy(failure);
    await expect(type).rejects.toBe(failure);
  });

  test('a source that is closed midway is no end', async () => {
    const source = new PassThrough();
    const { stream } = verifyStream(source, { kind: 'video', expectedBytes: null, maxBytes: 10_000 });
    source.write(files.mp4Faststart.subarray(0, 900));
    await nextTurn();
    source.destroy();
    await expect(stream.toArray()).rejects.toMatchObject({ kind: 'invalid' });
  });
});
