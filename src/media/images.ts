/**
 * Are these whole images, and how large? PNG, JPEG and WebP, each followed to its own end mark while the bytes stream by.
 * Pixels are not decoded: the size is what the header says.
 */
import { invalid, seek, skip, take, type Cursor, type Format, type Part, type Picture } from './structure.js';

/** Their first chunk says the size; one that is not there says none. */
const UNKNOWN = { width: 0, height: 0, animated: false };

/** PNG (W3C PNG, 5): chunks up to `IEND`. What comes after it is no part of the picture and is ignored. */
export function* png(cursor: Cursor): Format {
  yield* take(8, 'the PNG signature');
  cursor.picture = UNKNOWN;
  let hasPixels = false;
  for (;;) {
    const head = yield* take(8, 'a PNG chunk');
    const type = head.toString('latin1', 4, 8);
    if (!/^[A-Za-z]{4}$/.test(type)) throw invalid(`There is no PNG chunk at byte ${cursor.position - 8}.`);
    hasPixels ||= type === 'IDAT';
    let left = head.readUInt32BE(0) + 4;
    if (type === 'IHDR' && left >= 8) {
      const size = yield* take(8, 'the PNG header');
      cursor.picture = { ...cursor.picture, width: size.readUInt32BE(0), height: size.readUInt32BE(4) };
      left -= 8;
    } else if (type === 'acTL') cursor.picture = { ...cursor.picture, animated: true };
    yield* skip(left, `the PNG chunk ${type}`);
    if (type === 'IEND') break;
  }
  if (!hasPixels) throw invalid('The PNG has no pixels.');
}

const JPEG_END = 0xd9;
const JPEG_SCAN = 0xda;
/** Segments that begin a frame and say its size: C0 to CF without the tables C4, C8 and CC. */
const isFrame = (code: number): boolean => code >= 0xc0 && code <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(code);

/** JPEG (ITU T.81, B): segments and scans up to the end mark. A preview within a segment has its own, which is passed over. */
export function* jpeg(cursor: Cursor): Format {
  yield* take(2, 'the JPEG signature');
  cursor.picture = UNKNOWN;
  let hasScan = false;
  let code = yield* readMarker(cursor);
  while (code !== JPEG_END) {
    const length = (yield* take(2, 'a JPEG segment')).readUInt16BE(0);
    if (length < 2)
      throw invalid(`The JPEG segment at byte ${cursor.position} has the impossible size ${length}.`);
    let left = length - 2;
    if (isFrame(code) && left >= 5) {
      const frame = yield* take(5, 'a JPEG frame');
      cursor.picture = { ...UNKNOWN, width: frame.readUInt16BE(3), height: frame.readUInt16BE(1) };
      left -= 5;
    }
    yield* skip(left, 'a JPEG segment');
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
export function* webp(cursor: Cursor): Format {
  cursor.picture = UNKNOWN;
  const head = yield* take(12, 'the WebP header');
  const payloadBytes = head.readUInt32LE(4) - 4;
  if (payloadBytes < 8) throw invalid('The WebP has no pixels.');
  const headerBytes = Math.min(payloadBytes, 18);
  cursor.picture = webpPicture(yield* take(headerBytes, 'the WebP image'));
  yield* skip(payloadBytes - headerBytes, 'the WebP image');
}

/** The first chunk: extended, lossless or lossy. */
function webpPicture(chunk: Buffer): Picture {
  if (chunk.length < 18) return UNKNOWN;
  switch (chunk.toString('latin1', 0, 4)) {
    case 'VP8X':
      return {
        width: chunk.readUIntLE(12, 3) + 1,
        height: chunk.readUIntLE(15, 3) + 1,
        animated: (chunk[8]! & 0x02) !== 0,
      };
    case 'VP8L': {
      const bits = chunk.readUInt32LE(9);
      return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1, animated: false };
    }
    case 'VP8 ':
      return {
        width: chunk.readUInt16LE(14) & 0x3fff,
        height: chunk.readUInt16LE(16) & 0x3fff,
        animated: false,
      };
    default:
      return UNKNOWN;
  }
}
