/**
 * Undoes a `Content-Encoding` that was really applied. Hosts label plain bytes as `aws-chunked` or `gzip`, and some send
 * compressed ones although `identity` was asked for: the first bytes decide, the label only where they say nothing.
 */
import { pipeline, Readable, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { HEAD_BYTES, isKnown } from './sniff.js';
import { invalid } from './structure.js';

export interface Decoded {
  /** Errors as the source does, or with `AssetError` `invalid`. Destroying it ends the source. */
  readonly stream: Readable;
  /** The bytes were encoded; what was announced as their number counts the encoded ones. */
  readonly wasEncoded: boolean;
}

/** The bytes as the file has them. @throws what the source errors with before its first bytes */
export async function decode(source: Readable, label: string | null): Promise<Decoded> {
  const { head, stream } = await peek(source);
  const decoder = decoderFor(head, label?.trim().toLowerCase() ?? '');
  if (decoder === null) return { stream, wasEncoded: false };
  pipeline(stream, decoder, () => {});
  return { stream: Readable.from(decoded(stream, decoder), { objectMode: false }), wasEncoded: true };
}

async function* decoded(source: Readable, decoder: Transform): AsyncGenerator<Buffer> {
  try {
    yield* decoder as AsyncIterable<Buffer>;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw source.errored ?? invalid(`The compressed bytes are broken: ${reason}.`);
  }
}

function decoderFor(head: Buffer, label: string): Transform | null {
  if (head[0] === 0x1f && head[1] === 0x8b) return createGunzip();
  if (isKnown(head)) return null;
  const isZlib = head.length > 1 && (head[0]! & 0x0f) === 8 && head.readUInt16BE(0) % 31 === 0;
  if (label === 'deflate' && isZlib) return createInflate();
  return label === 'br' ? createBrotliDecompress() : null;
}

/** The first bytes, and a stream of all of them. */
function peek(source: Readable): Promise<{ head: Buffer; stream: Readable }> {
  return new Promise((resolve, reject) => {
    const held: Buffer[] = [];
    let sizeBytes = 0;
    const settle = (stream: (bytes: Buffer) => Readable): void => {
      source.off('readable', read).off('end', end).off('error', reject).off('close', closed);
      const bytes = Buffer.concat(held);
      resolve({ head: bytes.subarray(0, HEAD_BYTES), stream: stream(bytes) });
    };
    const read = (): void => {
      for (
        let chunk = source.read() as Buffer | null;
        chunk !== null;
        chunk = source.read() as Buffer | null
      ) {
        held.push(chunk);
        sizeBytes += chunk.length;
        if (sizeBytes < HEAD_BYTES) continue;
        return settle((bytes) => (source.unshift(bytes), source));
      }
    };
    // Fewer than were asked for: nothing can be put back into a stream that has ended.
    const end = (): void => settle((bytes) => Readable.from([bytes], { objectMode: false }));
    const closed = (): void => reject(invalid('The stream was closed before its first bytes.'));
    source.on('readable', read).once('end', end).once('error', reject).once('close', closed);
  });
}
