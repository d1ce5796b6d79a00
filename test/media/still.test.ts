/** What a video may start from: whole still pictures up to a size, whatever the cut of the pieces they come in. */
import { Readable } from 'node:stream';
import { expect, test } from '@jest/globals';
import { readPicture } from '../../src/media/still.js';
import { POSTER_JPEG, POSTER_PNG } from '../../src/simulator/fixtures.js';
import * as pictures from '../support/pictures.js';

const read = (bytes: Buffer, pieceBytes = bytes.length): Promise<object> => {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(bytes.subarray(at, at + pieceBytes));
  return readPicture(Readable.from(pieces), null);
};

test.each([
  ['a PNG of ffmpeg', POSTER_PNG, 32, 18],
  ['a JPEG of ffmpeg', POSTER_JPEG, 64, 36],
  ['the largest PNG', pictures.png(8000, 8000), 8000, 8000],
  ['a JPEG', pictures.jpeg(800, 600), 800, 600],
  ['an extended WebP', pictures.webp(8000, 1), 8000, 1],
  ['a lossless WebP', pictures.losslessWebp(8000, 300), 8000, 300],
  ['a lossy WebP', pictures.lossyWebp(300, 8000), 300, 8000],
])('%s says its size', async (_, bytes, width, height) => {
  for (const pieceBytes of [1, 7, bytes.length])
    expect(await read(bytes, pieceBytes)).toEqual({ width, height, animated: false });
});

test.each([
  ['8001 pixels', pictures.png(8001, 1), 'at most 8000 pixels a side, got 8001 x 1'],
  ['a bomb', pictures.png(4_000_000_000, 4_000_000_000), 'at most 8000 pixels'],
  ['a tall JPEG', pictures.jpeg(64, 65_535), 'at most 8000 pixels'],
  ['a wide WebP', pictures.webp(16_777_216, 64), 'at most 8000 pixels'],
  ['a large lossless WebP', pictures.losslessWebp(16_384, 64), 'at most 8000 pixels'],
  ['an animated PNG', pictures.animatedPng(), 'a still picture'],
  ['an animated WebP', pictures.animatedWebp(), 'a still picture'],
  ['no pixels', pictures.pngWithoutPixels(), 'no pixels'],
  ['no size', pictures.pngWithoutHeader(), 'does not say its size'],
  ['an empty size', pictures.png(0, 0), 'does not say its size'],
  ['no end', pictures.pngWithoutEnd(), 'ends at byte'],
  ['too many bytes', pictures.largePng(16_000_001), 'more than 16000000 bytes'],
])('%s is refused', async (_, bytes, words) => {
  await expect(read(bytes, 65_536)).rejects.toThrow(words);
});
