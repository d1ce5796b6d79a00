/**
 * Storage in a bucket that speaks S3: AWS, MinIO, R2, Ceph and others.
 *
 * An object becomes visible only when its upload is completed, so a reader sees the whole file or none. Nothing is
 * replaced: a key that is taken is compared byte by byte (size, then a hash of what is stored), and the completing request
 * says `If-None-Match: *`, so that of two writers at the same moment one is refused by the server. Servers that ignore
 * that header leave only the look beforehand; those that refuse it need `conditionalWrites: false`.
 *
 * The hash of a stream is known only at its end, when object metadata can no longer be set; so it is not kept beside the
 * object (the manifest has it) but computed again in the rare case that a key is taken.
 */
import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  paginateListObjectsV2,
  type PutObjectCommandInput,
  type StorageClass,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { InvalidInputError, StorageConflictError, StorageError } from '../errors.js';
import { assertKey } from './paths.js';
import { abortedBy, createClient, watchServerTime } from './s3-client.js';
import { asStorageError, statusOf } from './s3-errors.js';
import type { S3StorageOptions } from './s3-options.js';
import { createMeter, type Measured } from './meter.js';
import type { PutOptions, Storage, StoredFile } from './storage.js';

const PROBE_PREFIX = '.reelhaul-probe';
const MIN_PART_BYTES = 5 * 1024 * 1024;
/** The longest life of a presigned link. */
const MAX_LINK_SECONDS = 7 * 24 * 3600;

export function createS3Storage(options: S3StorageOptions): Storage {
  const { bucket, endpoint, conditionalWrites = true } = options;
  const prefix = options.prefix ? `${options.prefix.replace(/\/+$/, '')}/` : '';
  const client = createClient(options);
  const serverTime = watchServerTime(client);
  const place = `s3://${bucket}/${prefix}`;
  /** Uploads of this very object, which are not abandoned however old they look. */
  const writing = new Set<{ readonly objectKey: string }>();

  function objectKeyOf(key: string): string {
    assertKey(key);
    return `${prefix}${key}`;
  }

  async function lookUp(key: string, signal?: AbortSignal): Promise<{ sizeBytes: number } | null> {
    const command = new HeadObjectCommand({ Bucket: bucket, Key: objectKeyOf(key) });
    try {
      const { ContentLength } = await client.send(command, signal ? { abortSignal: signal } : {});
      return { sizeBytes: ContentLength ?? 0 };
    } catch (error) {
      if (statusOf(error) === 404) return null;
      throw error;
    }
  }

  async function get(key: string, range?: { start: number; end: number }): Promise<Readable> {
    const { Body } = await client.send(
      new GetObjectCommand({
        Bucket: bucket,
        Key: objectKeyOf(key),
        Range: range && `bytes=${range.start}-${range.end}`,
      }),
    );
    if (!(Body instanceof Readable)) throw new StorageError(`${place}${key} came without bytes.`, true);
    return Body;
  }

  async function holdsSameBytes(key: string, sizeBytes: number, wanted: Measured): Promise<boolean> {
    if (sizeBytes !== wanted.sizeBytes) return false;
    const hash = createHash('sha256');
    await pipeline(await get(key), hash);
    return hash.digest('hex') === wanted.sha256;
  }

  /** False when another writer took the key meanwhile. */
  async function upload(
    objectKey: string,
    chunks: AsyncIterable<Buffer>,
    { contentType, signal }: PutOptions,
  ): Promise<boolean> {
    const params: PutObjectCommandInput = {
      Bucket: bucket,
      Key: objectKey,
      Body: Readable.from(chunks, { objectMode: false }),
      ContentType: contentType,
      CacheControl: options.cacheControl ?? 'private, max-age=31536000, immutable',
      ServerSideEncryption: options.sse,
      SSEKMSKeyId: options.sseKmsKeyId,
      StorageClass: options.storageClass as StorageClass | undefined,
      IfNoneMatch: conditionalWrites ? '*' : undefined,
    };
    const sending = new Upload({
      client: signal === undefined ? client : abortedBy(signal, client),
      params,
      partSize: Math.max(options.partSizeBytes ?? MIN_PART_BYTES, MIN_PART_BYTES),
      queueSize: options.partsAtOnce ?? 2,
    });
    try {
      await sending.done();
      return true;
    } catch (error) {
      if (statusOf(error) === 412) return false;
      throw error;
    }
  }

  async function put(key: string, source: Readable, putOptions: PutOptions): Promise<StoredFile> {
    const { signal } = putOptions;
    const meter = createMeter(source, signal);
    let mark: { objectKey: string } | null = null;
    try {
      mark = { objectKey: objectKeyOf(key) };
      writing.add(mark);
      signal?.throwIfAborted();
      let there = await lookUp(key, signal);
      if (there !== null) await readThrough(meter.chunks());
      else if (!(await upload(mark.objectKey, meter.chunks(), putOptions))) there = await lookUp(key, signal);
      const measured = meter.measured();
      if (there !== null && !(await holdsSameBytes(key, there.sizeBytes, measured)))
        throw new StorageConflictError(key);

      // An abort from here on comes too late: the file is there.
      const stored = await lookUp(key);
      if (stored?.sizeBytes !== measured.sizeBytes) {
        throw new StorageError(`${place}${key} does not have the bytes that were sent.`, true);
      }
      return { key, ...measured };
    } catch (error) {
      meter.throwIfSourceFailed();
      throw asStorageError(error, `${place}${key} cannot be stored`);
    } finally {
      meter.dispose();
      if (mark !== null) writing.delete(mark);
    }
  }

  async function read(key: string, range?: { start: number; end: number }): Promise<Readable> {
    try {
      return await get(key, range);
    } catch (error) {
      throw asStorageError(error, `${place}${key} cannot be read`);
    }
  }

  async function remove(key: string): Promise<void> {
    try {
      await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: objectKeyOf(key) }));
    } catch (error) {
      throw asStorageError(error, `${place}${key} cannot be removed`);
    }
  }

  async function probe(): Promise<void> {
    const key = `${PROBE_PREFIX}/${randomUUID()}`;
    const bytes = Buffer.from(`reelhaul probe ${key}`);
    await put(key, Readable.from([bytes]), { contentType: 'text/plain' });
    const back = Buffer.concat((await (await read(key)).toArray()) as Buffer[]);
    await remove(key);
    if (!back.equals(bytes))
      throw new StorageError(`${place} gives back other bytes than were written.`, false);
  }

  async function abortOldUploads(olderThanMs: number): Promise<number> {
    let aborted = 0;
    let marker: { KeyMarker?: string; UploadIdMarker?: string | undefined } = {};
    for (;;) {
      const page = await client.send(
        new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix || undefined, ...marker }),
      );
      const before = serverTime() - olderThanMs;
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined || Initiated === undefined) continue;
        const isOurs = [...writing].some(({ objectKey }) => objectKey === Key);
        if (isOurs || Initiated.getTime() >= before) continue;
        if (await abortUpload(Key, UploadId)) aborted += 1;
      }
      if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return aborted;
      marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker };
    }
  }

  async function abortUpload(objectKey: string, uploadId: string): Promise<boolean> {
    try {
      await client.send(
        new AbortMultipartUploadCommand({ Bucket: bucket, Key: objectKey, UploadId: uploadId }),
      );
      return true;
    } catch (error) {
      // Another replica was faster, or its writer came to an end.
      if (statusOf(error) === 404) return false;
      throw error;
    }
  }

  async function removeOldProbes(olderThanMs: number): Promise<number> {
    let removed = 0;
    const pages = paginateListObjectsV2({ client }, { Bucket: bucket, Prefix: `${prefix}${PROBE_PREFIX}/` });
    for await (const page of pages) {
      const before = serverTime() - olderThanMs;
      for (const { Key, LastModified } of page.Contents ?? []) {
        if (Key === undefined || LastModified === undefined || LastModified.getTime() >= before) continue;
        if ([...writing].some(({ objectKey }) => objectKey === Key)) continue;
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
        removed += 1;
      }
    }
    return removed;
  }

  async function removeAbandoned(
    olderThanMs: number,
    report: (problem: StorageError) => void = () => {},
  ): Promise<number> {
    const tidied = async (what: string, work: Promise<number>): Promise<number> => {
      try {
        return await work;
      } catch (error) {
        // A server that cannot list uploads leaves them to its own rules (a lifecycle rule of the bucket).
        if (statusOf(error) === 501 || statusOf(error) === 405) return 0;
        const problem = asStorageError(error, `${what} of ${place} cannot be tidied`);
        if (!(problem instanceof StorageError)) throw problem;
        report(problem);
        return 0;
      }
    };
    const uploads = await tidied('unfinished uploads', abortOldUploads(olderThanMs));
    return uploads + (await tidied('probe files', removeOldProbes(olderThanMs)));
  }

  async function urlFor(
    key: string,
    { expiresInSeconds }: { readonly expiresInSeconds: number },
  ): Promise<string> {
    if (!Number.isInteger(expiresInSeconds) || expiresInSeconds < 1 || expiresInSeconds > MAX_LINK_SECONDS) {
      throw new InvalidInputError('The link cannot be made', [
        {
          path: 'expiresInSeconds',
          message: `expected a whole number from 1 to ${MAX_LINK_SECONDS}, got ${expiresInSeconds}`,
        },
      ]);
    }
    // The bytes may be kept as long as the link lives, not as long as the object says.
    const cacheControl = `private, max-age=${expiresInSeconds}`;
    const command = new GetObjectCommand({
      Bucket: bucket,
      Key: objectKeyOf(key),
      ResponseCacheControl: cacheControl,
    });
    try {
      const { getSignedUrl } = await import('@aws-sdk/s3-request-presigner');
      return await getSignedUrl(client, command, { expiresIn: expiresInSeconds });
    } catch (error) {
      throw asStorageError(error, `${place}${key} cannot be linked to`);
    }
  }

  return {
    description: endpoint === undefined ? `bucket ${place}` : `bucket ${place} at ${endpoint}`,
    put,
    stat: async (key) => {
      try {
        return await lookUp(key);
      } catch (error) {
        throw asStorageError(error, `${place}${key} cannot be looked up`);
      }
    },
    read,
    remove,
    probe,
    removeAbandoned,
    urlFor,
    close: () => {
      client.destroy();
      return Promise.resolve();
    },
  };
}

/** To the end, for the sake of what is counted on the way. */
async function readThrough(chunks: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of chunks) void chunk;
}
