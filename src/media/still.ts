/** Can a video start from this picture? The provider takes whole still pictures up to a size. */
import { finished } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import { MAX_INPUT_BYTES, MAX_INPUT_SIDE } from '../generation/inputs.js';
import { invalid, type Picture } from './structure.js';
import { verify, type Verified } from './verify.js';

/** Looks at the bytes while they stream by. @param expectedBytes null when it is not known */
export const verifyPicture = (source: Readable, expectedBytes: number | null): Verified =>
  verify(source, { kind: 'image', expectedBytes, maxBytes: MAX_INPUT_BYTES });

/** The picture, at the end of its stream. @throws AssetError `invalid` */
export function stillPicture({ picture }: Pick<Verified, 'picture'>): Picture {
  const found = picture();
  if (found === null || found.width === 0 || found.height === 0)
    throw invalid('The picture does not say its size.');
  const { width, height, animated } = found;
  if (animated) throw invalid('Expected a still picture, got an animated one.');
  if (width > MAX_INPUT_SIDE || height > MAX_INPUT_SIDE) {
    throw invalid(`Expected at most ${MAX_INPUT_SIDE} pixels a side, got ${width} x ${height}.`);
  }
  return found;
}

/** Reads a picture to its end and keeps nothing of it. @throws AssetError; what the source errors with */
export async function readPicture(source: Readable, expectedBytes: number | null): Promise<Picture> {
  const verified = verifyPicture(source, expectedBytes);
  verified.stream.resume();
  await finished(verified.stream);
  return stillPicture(verified);
}
