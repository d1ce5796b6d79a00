/**
 * The type of a file, by its first bytes alone: hosts label videos as `application/octet-stream` and error pages as
 * `video/mp4`.
 */
import { jpeg, png, webp } from './images.js';
import { mp4 } from './mp4.js';
import { invalid, type Cursor, type Format } from './structure.js';
import { webm } from './webm.js';

export type AssetKind = 'video' | 'image';

export interface AssetType {
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
  readonly format: (cursor: Cursor, expectedBytes: number | null) => Format;
}

/** This many first bytes are enough. */
export const HEAD_BYTES = 64;

const MP4: AssetType = { contentType: 'video/mp4', extension: 'mp4', format: mp4 };
const MOV: AssetType = { contentType: 'video/quicktime', extension: 'mov', format: mp4 };
const WEBM: AssetType = { contentType: 'video/webm', extension: 'webm', format: webm };
const PNG: AssetType = { contentType: 'image/png', extension: 'png', format: png };
const JPEG: AssetType = { contentType: 'image/jpeg', extension: 'jpg', format: jpeg };
const WEBP: AssetType = { contentType: 'image/webp', extension: 'webp', format: webp };

/** Every extension that a stored file of that kind can have. */
export const EXTENSIONS: Readonly<Record<AssetKind, readonly string[]>> = {
  video: [MP4, MOV, WEBM].map(({ extension }) => extension),
  image: [PNG, JPEG, WEBP].map(({ extension }) => extension),
};

/** Major brands of `ftyp` that share the container with MP4 but are no video: HEIF and AVIF images, sound. */
const NOT_VIDEO: ReadonlySet<string> = new Set([
  'heic',
  'heix',
  'heim',
  'heis',
  'hevc',
  'hevx',
  'mif1',
  'msf1',
  'avif',
  'avis',
  'M4A ',
  'M4B ',
  'M4P ',
]);

/**
 * The type of a file of this kind that begins with `head` (its first `HEAD_BYTES` bytes, or all of a smaller one).
 * @throws AssetError `invalid`, saying what it looks like instead.
 */
export function sniff(head: Buffer, kind: AssetKind): AssetType {
  const type = kind === 'video' ? videoType(head) : imageType(head);
  if (type === null)
    throw invalid(`Expected ${kind === 'video' ? 'a video' : 'an image'}, got ${looksLike(head)}.`);
  return type;
}

/** Are these the first bytes of a known type? */
export function isKnown(head: Buffer): boolean {
  return videoType(head) !== null || imageType(head) !== null;
}

function videoType(head: Buffer): AssetType | null {
  if (head.toString('latin1', 4, 8) === 'ftyp') {
    const brand = head.toString('latin1', 8, 12);
    if (NOT_VIDEO.has(brand)) return null;
    return brand === 'qt  ' ? MOV : MP4;
  }
  return head.toString('hex', 0, 4) === '1a45dfa3' ? WEBM : null;
}

function imageType(head: Buffer): AssetType | null {
  if (head.toString('hex', 0, 8) === '89504e470d0a1a0a') return PNG;
  if (head.toString('hex', 0, 3) === 'ffd8ff') return JPEG;
  if (head.toString('latin1', 0, 4) === 'RIFF' && head.toString('latin1', 8, 12) === 'WEBP') return WEBP;
  return null;
}

function looksLike(head: Buffer): string {
  if (head.length === 0) return 'no bytes at all';
  const other = videoType(head) ?? imageType(head);
  if (other !== null) return other.contentType;
  const text = head
    .toString('utf8')
    .replace(/^\uFEFF/, '')
    .trimStart();
  if (/^<(!doctype|html|head|body)/i.test(text)) return 'an HTML page';
  if (text.startsWith('<')) return 'XML or HTML';
  if (text.startsWith('{') || text.startsWith('[')) return 'JSON';
  if (/^[\x20-\x7e\s]+$/.test(text)) return `the text ${JSON.stringify(text.slice(0, 32))}`;
  return `bytes that begin with ${head.toString('hex', 0, 8)}`;
}
