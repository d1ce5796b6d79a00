/**
 * Is this a whole MP4 or QuickTime file? Follows the boxes of ISO/IEC 14496-12 while the bytes stream by: their sizes
 * must add up to the end of the file, so that a truncated one is found even when its length is not known.
 *
 * Required: `ftyp`, `moov` with a video track, `mdat`; in a fragmented file every `moof` followed by its `mdat`. Every
 * chunk offset (`stco`, `co64`) must lie within the file. When the last `mdat` is open-ended, its payload must hold all
 * samples that `stsz` counts, since its size cannot tell. Sample data is passed over, never kept.
 *
 * Bytes behind a file that is whole (some hosts add a few zeros) are accepted when the host announced the length.
 *
 * Not detected: a fragmented file that was cut exactly between two fragments; nothing in it says how many there should be.
 */
import { atEnd, invalid, skip, take, takeUpTo, type Cursor, type Format, type Part } from './structure.js';

/** The boxes that lead to the sample tables; all others are passed over. */
const CHILDREN_OF: Readonly<Record<string, readonly string[]>> = {
  moov: ['trak'],
  trak: ['mdia'],
  mdia: ['minf', 'hdlr'],
  minf: ['stbl'],
  stbl: ['stco', 'co64', 'stsz'],
};
const NEEDED = ['ftyp', 'moov', 'mdat'] as const;
/** Entries of a table are read in blocks of so many bytes (a multiple of 4 and 8). */
const BLOCK_BYTES = 4096;
const TABLE_HEAD_BYTES = 8;

interface Box {
  readonly type: string;
  readonly startByte: number;
  /** Where it ends; infinite when its size is 0, which means "to the end of the file". */
  readonly endByte: number;
}

/** What was seen on the way. */
interface Findings {
  readonly seen: Set<string>;
  hasVideo: boolean;
  fragmentOpen: boolean;
  lastChunkOffset: number;
  sampleBytes: number;
  mediaBytes: number;
  mediaIsOpenEnded: boolean;
}

/** The format MP4. `expectedBytes`, when known, refuses a box that reaches beyond it at once. */
export function* mp4(cursor: Cursor, expectedBytes: number | null = null): Format {
  const findings: Findings = {
    seen: new Set(),
    hasVideo: false,
    fragmentOpen: false,
    lastChunkOffset: -1,
    sampleBytes: 0,
    mediaBytes: 0,
    mediaIsOpenEnded: false,
  };

  while (!(yield* atEnd())) {
    const box = yield* readTopBox(cursor, expectedBytes, findings);
    if (box === null) break;
    findings.seen.add(box.type);
    const payloadStart = cursor.position;
    if (box.type === 'moov') yield* readChildren(cursor, box, findings);
    else yield* skip(box.endByte - cursor.position, `the box ${box.type}`);

    if (box.type === 'moof') findings.fragmentOpen = true;
    if (box.type === 'mdat') {
      findings.fragmentOpen = false;
      findings.mediaBytes += cursor.position - payloadStart;
      findings.mediaIsOpenEnded ||= box.endByte === Number.POSITIVE_INFINITY;
    }
  }
  conclude(findings, cursor.trailingFrom ?? cursor.position);
}

/** The next box of the file itself; null when a whole file lies behind and what follows is no part of it. */
function* readTopBox(cursor: Cursor, expectedBytes: number | null, findings: Findings): Part<Box | null> {
  const startByte = cursor.position;
  const head = yield* takeUpTo(8);
  try {
    if (head.length < 8)
      throw invalid(`The file ends at byte ${cursor.position}, in the middle of a box header.`);
    const box = yield* parseHeader(startByte, head);
    if (findings.seen.size === 0 && box.type !== 'ftyp')
      throw invalid(`The file begins with ${box.type}, not ftyp.`);
    if (expectedBytes !== null && box.endByte !== Number.POSITIVE_INFINITY && box.endByte > expectedBytes)
      throw invalid(`The box ${box.type} would end at byte ${box.endByte} of ${expectedBytes}.`);
    return box;
  } catch (error) {
    if (expectedBytes === null || !isWhole(findings, startByte, head)) throw error;
    cursor.trailingFrom = startByte;
    yield* skip(Number.POSITIVE_INFINITY, 'what follows the file');
    return null;
  }
}

/** Is everything there without the bytes from `startByte` on? Of fragments, which are not counted, only if those are no cut one. */
function isWhole(
  { seen, hasVideo, fragmentOpen, lastChunkOffset }: Findings,
  startByte: number,
  head: Buffer,
): boolean {
  if (!hasVideo || fragmentOpen || lastChunkOffset >= startByte || !NEEDED.every((type) => seen.has(type)))
    return false;
  return !seen.has('moof') || head.every((byte) => byte === 0);
}

function conclude(findings: Findings, fileBytes: number): void {
  const { seen } = findings;
  const missing = NEEDED.filter((type) => !seen.has(type));
  if (missing.length > 0) throw invalid(`The file has no ${missing.join(' and no ')}.`);
  if (!findings.hasVideo) throw invalid('The file has no video track.');
  if (findings.fragmentOpen) throw invalid('The last fragment has no data.');
  if (!seen.has('moof') && findings.lastChunkOffset < 0) throw invalid('The file has no frames.');
  if (findings.lastChunkOffset >= fileBytes) {
    throw invalid(
      `A chunk begins at byte ${findings.lastChunkOffset}, but the file ends at byte ${fileBytes}.`,
    );
  }
  if (findings.mediaIsOpenEnded && findings.sampleBytes > findings.mediaBytes) {
    throw invalid(`The frames need ${findings.sampleBytes} bytes, but there are ${findings.mediaBytes}.`);
  }
}

function* readHeader(cursor: Cursor): Part<Box> {
  const startByte = cursor.position;
  return yield* parseHeader(startByte, yield* take(8, 'a box header'));
}

function* parseHeader(startByte: number, head: Buffer): Part<Box> {
  const type = head.toString('latin1', 4, 8);
  if (!/^[\x20-\x7e\xa9]{4}$/.test(type)) throw invalid(`There is no box at byte ${startByte}.`);

  let sizeBytes = head.readUInt32BE(0);
  let headBytes = 8;
  if (sizeBytes === 1) {
    sizeBytes = Number((yield* take(8, `the header of ${type}`)).readBigUInt64BE(0));
    headBytes = 16;
  } else if (sizeBytes === 0) {
    return { type, startByte, endByte: Number.POSITIVE_INFINITY };
  }
  if (sizeBytes < headBytes || !Number.isSafeInteger(startByte + sizeBytes)) {
    throw invalid(`The box ${type} at byte ${startByte} has the impossible size ${sizeBytes}.`);
  }
  return { type, startByte, endByte: startByte + sizeBytes };
}

/** The boxes in a box: they must fill it exactly. */
function* readChildren(cursor: Cursor, parent: Box, findings: Findings): Part<void> {
  const wanted = CHILDREN_OF[parent.type] ?? [];
  if (parent.endByte === Number.POSITIVE_INFINITY) throw invalid(`The box ${parent.type} has no size.`);
  while (cursor.position < parent.endByte) {
    const left = parent.endByte - cursor.position;
    if (left < 8) {
      // QuickTime ends some lists with four zero bytes.
      yield* skip(left, `the box ${parent.type}`);
      return;
    }
    const box = yield* readHeader(cursor);
    if (box.endByte > parent.endByte)
      throw invalid(`The box ${box.type} is larger than ${parent.type} around it.`);
    if (wanted.includes(box.type)) {
      if (box.type in CHILDREN_OF) yield* readChildren(cursor, box, findings);
      else if (box.type === 'hdlr') yield* readHandler(cursor, box, findings);
      else yield* readTable(cursor, box, findings);
    }
    yield* skip(box.endByte - cursor.position, `the box ${box.type}`);
  }
}

function* readHandler(cursor: Cursor, box: Box, findings: Findings): Part<void> {
  if (box.endByte - cursor.position < 12) throw invalid('The box hdlr is too small.');
  const head = yield* take(12, 'the box hdlr');
  if (head.toString('latin1', 8, 12) === 'vide') findings.hasVideo = true;
}

/** `stco`, `co64`: where chunks begin. `stsz`: how large samples are. */
function* readTable(cursor: Cursor, box: Box, findings: Findings): Part<void> {
  const headBytes = box.type === 'stsz' ? TABLE_HEAD_BYTES + 4 : TABLE_HEAD_BYTES;
  if (box.endByte - cursor.position < headBytes) throw invalid(`The box ${box.type} is too small.`);
  const head = yield* take(headBytes, `the box ${box.type}`);
  const count = head.readUInt32BE(headBytes - 4);
  if (box.type === 'stsz' && head.readUInt32BE(4) !== 0) {
    findings.sampleBytes += head.readUInt32BE(4) * count;
    return;
  }
  const width = box.type === 'co64' ? 8 : 4;
  if (cursor.position + count * width > box.endByte) {
    throw invalid(`The box ${box.type} says ${count} entries, for which it is too small.`);
  }
  for (let leftBytes = count * width; leftBytes > 0; leftBytes -= BLOCK_BYTES) {
    const block = yield* take(Math.min(leftBytes, BLOCK_BYTES), `the box ${box.type}`);
    for (let at = 0; at < block.length; at += width) {
      const value = width === 8 ? Number(block.readBigUInt64BE(at)) : block.readUInt32BE(at);
      if (box.type === 'stsz') findings.sampleBytes += value;
      else findings.lastChunkOffset = Math.max(findings.lastChunkOffset, value);
    }
  }
}
