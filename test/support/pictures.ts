/** Pictures as bytes, right ones and those that only look like it. Pixels are never decoded: they may be anything. */
import { crc32 } from 'node:zlib';

type Chunk = readonly [type: string, content: Buffer];

const chunk = ([type, content]: Chunk): Buffer => {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), content]);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(content.length, 0);
  ends.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
};

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');
const PIXELS: Chunk = ['IDAT', Buffer.alloc(64)];
const END: Chunk = ['IEND', Buffer.alloc(0)];
export const pngOf = (...chunks: readonly Chunk[]): Buffer =>
  Buffer.concat([SIGNATURE, ...chunks.map(chunk)]);

const header = (width: number, height: number): Chunk => {
  const content = Buffer.alloc(13, 8);
  content.writeUInt32BE(width, 0);
  content.writeUInt32BE(height, 4);
  return ['IHDR', content];
};

export const png = (width = 64, height = 36): Buffer => pngOf(header(width, height), PIXELS, END);
export const animatedPng = (): Buffer =>
  pngOf(header(64, 36), ['acTL', Buffer.from([0, 0, 0, 2, 0, 0, 0, 0])], PIXELS, END);
export const pngWithoutPixels = (): Buffer => pngOf(header(64, 36), END);
export const pngWithoutEnd = (): Buffer => pngOf(header(64, 36), PIXELS);
export const pngWithoutHeader = (): Buffer => pngOf(PIXELS, END);
/** A whole PNG of that many bytes. */
export const largePng = (sizeBytes: number): Buffer =>
  pngOf(header(64, 36), ['IDAT', Buffer.alloc(sizeBytes - 57)], END);

export function jpeg(width = 64, height = 36): Buffer {
  const frame = Buffer.from([0xff, 0xc0, 0, 8, 8, 0, 0, 0, 0, 0]);
  frame.writeUInt16BE(height, 5);
  frame.writeUInt16BE(width, 7);
  const scan = Buffer.from([0xff, 0xda, 0, 2, 1, 2, 3, 4, 0xff, 0xd9]);
  return Buffer.concat([Buffer.from([0xff, 0xd8]), frame, scan]);
}

function riff(type: string, content: Buffer): Buffer {
  const head = Buffer.alloc(20);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(12 + content.length, 4);
  head.write(`WEBP${type}`, 8, 'latin1');
  head.writeUInt32LE(content.length, 16);
  return Buffer.concat([head, content]);
}

export function webp(width = 64, height = 36, flags = 0): Buffer {
  const content = Buffer.alloc(10);
  content[0] = flags;
  content.writeUIntLE(width - 1, 4, 3);
  content.writeUIntLE(height - 1, 7, 3);
  return riff('VP8X', content);
}
export const animatedWebp = (): Buffer => webp(64, 36, 0x02);

export function losslessWebp(width: number, height: number): Buffer {
  const content = Buffer.alloc(12);
  content[0] = 0x2f;
  content.writeUInt32LE((width - 1) | ((height - 1) << 14), 1);
  return riff('VP8L', content);
}

export function lossyWebp(width: number, height: number): Buffer {
  const content = Buffer.from('0000009d012a000000000000', 'hex');
  content.writeUInt16LE(width, 6);
  content.writeUInt16LE(height, 8);
  return riff('VP8 ', content);
}
