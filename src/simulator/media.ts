/**
 * The bytes of a task's files as they should be. Each file is real (it plays, it opens) and no two tasks share one: the
 * task id is written where players look away, in a `free` box (MP4), a comment segment (JPEG) or a text chunk (PNG).
 *
 * A big video (`size=2GB`) is the small one followed by an `mdat` box of filler that is made while it is read, so that
 * memory stays flat whatever the size.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { LAST_FRAME_JPEG, POSTER_JPEG, POSTER_PNG, VIDEO_MP4 } from './fixtures.js';

/** A stored file of a task, under the name reelhaul gives it. */
export const ASSET_NAMES = ['video', 'poster', 'lastFrame'] as const;
export type AssetName = (typeof ASSET_NAMES)[number];

/** A file that can be read from any place without being held in memory. */
export interface Media {
  readonly sizeBytes: number;
  readonly contentType: string;
  /** The bytes from `start` up to, not including, `end`, in pieces of at most 256 KB. */
  read(start: number, end: number): Iterable<Buffer>;
}

const PIECE_BYTES = 256 * 1024;

/** Not a power of two, so that swapped or repeated parts of an upload change the checksum. */
const FILLER_BYTES = 1_048_573;

let filler: Buffer | null = null;

/** Noise that does not compress and is the same in every process. */
function fillerBlock(): Buffer {
  if (filler === null) {
    filler = Buffer.alloc(FILLER_BYTES);
    let state = 0x9e3779b9;
    for (let at = 0; at < FILLER_BYTES; at += 1) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      filler[at] = state & 0xff;
    }
  }
  return filler;
}

function mediaOf(contentType: string, head: Buffer, fillerBytes = 0): Media {
  const sizeBytes = head.length + fillerBytes;
  return {
    sizeBytes,
    contentType,
    *read(start, end) {
      let at = start;
      const until = Math.min(end, sizeBytes);
      while (at < until) {
        const left = Math.min(PIECE_BYTES, until - at);
        let piece: Buffer;
        if (at < head.length) {
          piece = head.subarray(at, Math.min(head.length, at + left));
        } else {
          const within = (at - head.length) % FILLER_BYTES;
          piece = fillerBlock().subarray(within, Math.min(FILLER_BYTES, within + left));
        }
        at += piece.length;
        yield piece;
      }
    },
  };
}

/** A top-level MP4 box. */
function box(type: string, content: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(8 + content.length, 0);
  header.write(type, 4, 'latin1');
  return Buffer.concat([header, content]);
}

/** The header of an `mdat` box with a 64-bit length, as files beyond 4 GB need it. */
function largeMdatHeader(contentBytes: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(1, 0);
  header.write('mdat', 4, 'latin1');
  header.writeBigUInt64BE(BigInt(16 + contentBytes), 8);
  return header;
}

function videoOf(taskId: string, sizeBytes: number | null): Media {
  const head = Buffer.concat([VIDEO_MP4, box('free', Buffer.from(`reelhaul simulator, task ${taskId}`))]);
  const fillerBytes = (sizeBytes ?? 0) - head.length - 16;
  if (fillerBytes <= 0) return mediaOf('video/mp4', head);
  return mediaOf('video/mp4', Buffer.concat([head, largeMdatHeader(fillerBytes)]), fillerBytes);
}

/** The JPEG with a comment segment right after its start-of-image marker. */
function jpegOf(original: Buffer, taskId: string): Media {
  const text = Buffer.from(`reelhaul simulator, task ${taskId}`);
  const segment = Buffer.alloc(4);
  segment.writeUInt16BE(0xfffe, 0);
  segment.writeUInt16BE(2 + text.length, 2);
  return mediaOf('image/jpeg', Buffer.concat([original.subarray(0, 2), segment, text, original.subarray(2)]));
}

/** The PNG with a `tEXt` chunk before its last one (IEND, 12 bytes). */
function pngOf(original: Buffer, taskId: string): Media {
  const typeAndText = Buffer.from(`tEXtComment\0reelhaul simulator, task ${taskId}`, 'latin1');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(typeAndText.length - 4, 0);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(typeAndText), 0);
  const end = original.length - 12;
  return mediaOf(
    'image/png',
    Buffer.concat([original.subarray(0, end), length, typeAndText, checksum, original.subarray(end)]),
  );
}

export interface MediaChoice {
  readonly taskId: string;
  /** Wanted size of the video in bytes; null for the small one (about 2 KB). */
  readonly videoSizeBytes: number | null;
  readonly posterFormat: 'jpeg' | 'png';
}

/** The file `asset` of this task. */
export function mediaFor(asset: AssetName, choice: MediaChoice): Media {
  switch (asset) {
    case 'video':
      return videoOf(choice.taskId, choice.videoSizeBytes);
    case 'poster':
      return choice.posterFormat === 'png'
        ? pngOf(POSTER_PNG, choice.taskId)
        : jpegOf(POSTER_JPEG, choice.taskId);
    case 'lastFrame':
      return jpegOf(LAST_FRAME_JPEG, choice.taskId);
  }
}

/** The whole file in memory. For the small ones only. */
export function wholeBytes(media: Media): Buffer {
  return Buffer.concat([...media.read(0, media.sizeBytes)]);
}

/** The sha256 (hex) of the whole file, letting other work run in between: 2 GB take seconds. */
export async function sha256Of(media: Media): Promise<string> {
  const hash = createHash('sha256');
  let sinceBreakBytes = 0;
  for (const piece of media.read(0, media.sizeBytes)) {
    hash.update(piece);
    sinceBreakBytes += piece.length;
    if (sinceBreakBytes >= 8 * 1024 * 1024) {
      sinceBreakBytes = 0;
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
  }
  return hash.digest('hex');
}
