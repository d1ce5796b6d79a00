/**
 * Is this a whole WebM file? Follows the EBML elements (RFC 8794, RFC 9559) while the bytes stream by: the sizes of the
 * header, the segment and the clusters must add up to the end of the file, there must be tracks and a cluster.
 *
 * Not detected: a live recording (segment or clusters of unknown size) that was cut exactly between two elements; nothing
 * in it says where it should end.
 */
import { atEnd, invalid, skip, take, type Cursor, type Format, type Part } from './structure.js';

const EBML = 0x1a45dfa3;
const DOC_TYPE = 0x4282;
const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;
const TRACKS = 0x1654ae6b;
/** What stands directly in a segment: SeekHead, Info, Tracks, Cluster, Cues, Chapters, Tags, Attachments. */
const SEGMENT_CHILDREN: ReadonlySet<number> = new Set([
  0x114d9b74,
  0x1549a966,
  TRACKS,
  CLUSTER,
  0x1c53bb6b,
  0x1043a770,
  0x1254c367,
  0x1941a469,
]);

interface Element {
  readonly id: number;
  /** Infinite when its size is unknown: it ends where something begins that cannot be in it. */
  readonly endByte: number;
}

export function* webm(cursor: Cursor): Format {
  const seen = new Set<number>();
  const open: Element[] = [];

  for (;;) {
    while (open.length > 0 && open.at(-1)!.endByte === cursor.position) open.pop();
    if (open.every(({ endByte }) => endByte === Number.POSITIVE_INFINITY) && (yield* atEnd())) break;

    const element = yield* readHeader(cursor);
    while (open.length > 0 && endsBefore(open.at(-1)!, element)) open.pop();
    const parent = open.at(-1);
    if (seen.size === 0 && element.id !== EBML) throw invalid('The file does not begin with an EBML header.');
    if (
      parent !== undefined &&
      element.endByte !== Number.POSITIVE_INFINITY &&
      element.endByte > parent.endByte
    ) {
      throw invalid(`The element at byte ${cursor.position} is larger than the one around it.`);
    }
    seen.add(element.id);

    if (element.id === EBML || element.id === SEGMENT || element.id === CLUSTER) {
      open.push(element);
    } else if (element.endByte === Number.POSITIVE_INFINITY) {
      throw invalid(`The element before byte ${cursor.position} has no size.`);
    } else if (element.id === DOC_TYPE) {
      yield* readDocType(cursor, element);
    } else {
      yield* skip(element.endByte - cursor.position, 'an element');
    }
  }

  if (!seen.has(DOC_TYPE)) throw invalid('The file does not say that it is WebM.');
  if (!seen.has(SEGMENT) || !seen.has(TRACKS)) throw invalid('The file has no tracks.');
  if (!seen.has(CLUSTER)) throw invalid('The file has no frames.');
}

/** An element of unknown size ends where one begins that belongs further up. */
function endsBefore(open: Element, next: Element): boolean {
  if (open.endByte !== Number.POSITIVE_INFINITY) return false;
  const belongsOnTop = next.id === EBML || next.id === SEGMENT;
  return belongsOnTop || (open.id === CLUSTER && SEGMENT_CHILDREN.has(next.id));
}

function* readDocType(cursor: Cursor, element: Element): Part<void> {
  const bytes = element.endByte - cursor.position;
  const docType =
    bytes <= 16 ? (yield* take(bytes, 'the EBML header')).toString('latin1').replace(/\0+$/, '') : '';
  if (docType !== 'webm') throw invalid(`The file is ${JSON.stringify(docType)}, not WebM.`);
}

function* readHeader(cursor: Cursor): Part<Element> {
  const first = (yield* take(1, 'an element header'))[0]!;
  const idBytes = Math.clz32(first) - 23;
  if (idBytes > 4) throw invalid(`There is no element at byte ${cursor.position - 1}.`);
  let id = first;
  if (idBytes > 1) {
    for (const byte of yield* take(idBytes - 1, 'an element header')) id = id * 256 + byte;
  }

  const sizeFirst = (yield* take(1, 'an element header'))[0]!;
  const sizeBytes = Math.clz32(sizeFirst) - 23;
  if (sizeBytes > 8) throw invalid(`There is no element before byte ${cursor.position}.`);
  const mask = 2 ** (8 - sizeBytes) - 1;
  let size = sizeFirst & mask;
  let allOnes = size === mask;
  if (sizeBytes > 1) {
    for (const byte of yield* take(sizeBytes - 1, 'an element header')) {
      size = size * 256 + byte;
      allOnes &&= byte === 0xff;
    }
  }
  if (allOnes) return { id, endByte: Number.POSITIVE_INFINITY };
  if (!Number.isSafeInteger(cursor.position + size)) throw invalid('An element has an impossible size.');
  return { id, endByte: cursor.position + size };
}
