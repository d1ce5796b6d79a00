/**
 * Are these whole images? PNG, JPEG and WebP, each followed to its own end mark while the bytes stream by. Pixels are
 * not decoded.
 */
import { invalid, seek, skip, take, type Cursor, type Format, type Part } from './structure.js';

/** PNG (W3C PNG, 5): chunks up to `IEND`. What comes after it belongs to nobody and is let be. */
export function* png(cursor: Cursor): Format {
  yield* take(8, 'the PNG signature');
  let hasPixels = false;
  for (;;) {
    const head = yield* take(8, 'a PNG chunk');
    const type = head.toString('latin1', 4, 8);
    if (!/^[A-Za-z]{4}$/.test(type)) throw invalid(`There is no PNG chunk at byte ${cursor.position - 8}.`);
    hasPixels ||= type === 'IDAT';
    yield* skip(head.readUInt32BE(0) + 4, `the PNG chunk ${type}`);
    if (type === 'IEND') break;
  }
  if (!hasPixels) throw invalid('The PNG has no pixels.');
}

const JPEG_END = 0xd9;
const JPEG_SCAN = 0xda;

/** JPEG (ITU T.81, B): segments and scans up to the end mark. A preview within a segment has its own, which is passed over. */
export function* jpeg(cursor: Cursor): Format {
  yield* take(2, 'the JPEG signature');
  let hasScan = false;
  let code = yield* readMarker(cursor);
  while (code !== JPEG_END) {
    const length = (yield* take(2, 'a JPEG segment')).readUInt16BE(0);
    if (length < 2)
      throw invalid(`The JPEG segment at byte ${cursor.position} has the impossible size ${length}.`);
    yield* skip(length - 2, 'a JPEG segment');
    hasScan ||= code === JPEG_SCAN;
    code = code === JPEG_SCAN ? yield* passScan() : yield* readMarker(cursor);
  }
  if (!hasScan) throw invalid('The JPEG has no pixels.');
}

function* readMarker(cursor: Cursor): Part<number> {
  const mark = (yield* take(1, 'a JPEG marker'))[0]!;
  if (mark !== 0xff) throw invalid(`There is no JPEG marker at byte ${cursor.position - 1}.`);
  return yield* readCode();
}

/** What follows FF; any number of FF may stand before it. */
function* readCode(): Part<number> {
  let code = 0xff;
  while (code === 0xff) code = (yield* take(1, 'a JPEG marker'))[0]!;
  return code;
}

/** Passes over the pixels and gives the code after them. Stuffing (00) and restart marks (D0 to D7) are pixels too. */
function* passScan(): Part<number> {
  for (;;) {
    yield* seek(0xff, 'a JPEG scan');
    const code = yield* readCode();
    if (code !== 0x00 && !(code >= 0xd0 && code <= 0xd7)) return code;
  }
}

/** WebP (RFC 9649): one RIFF that says its length. What comes after it is not part of the image. */
export function* webp(): Format {
  const head = yield* take(12, 'the WebP header');
  const payloadBytes = head.readUInt32LE(4) - 4;
  if (payloadBytes < 8) throw invalid('The WebP has no pixels.');
  yield* skip(payloadBytes, 'the WebP image');
}
