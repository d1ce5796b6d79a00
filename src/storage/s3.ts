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
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
  type PutObjectCommandInput,
  type ServerSideEncryption,
  type StorageClass,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { InvalidInputError, StorageConflictError, StorageError } from '../errors.js';
import { assertKey } from './paths.js';
import { createMeter, type Measured } from './meter.js';
import type { PutOptions, Storage, StoredFile } from './storage.js';

export interface S3StorageOptions {
  readonly bucket: string;
  /** Goes before every key, with a `/` between. Default none. */
  readonly prefix?: string;
  /** Default: the SDK's usual places; `us-east-1` when there is an `endpoint`. */
  readonly region?: string;
  /** For servers other than AWS. */
  readonly endpoint?: string;
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`. Default false. */
  readonly forcePathStyle?: boolean;
  readonly serverSideEncryption?: ServerSideEncryption;
  readonly kmsKeyId?: string;
  readonly storageClass?: string;
  /** Default `private, max-age=31536000, immutable`: a key never changes its bytes. */
  readonly cacheControl?: string;
  /** At least 5 MiB, which is the default. Memory per upload is about this times `partsAtOnce`. */
  readonly partSizeBytes?: number;
  /** Parts of one file on their way at once. Default 2. */
  readonly partsAtOnce?: number;
  /** Says `If-None-Match: *`. Default true; false for servers that refuse it. */
  readonly conditionalWrites?: boolean;
  /** Sends and checks CRC checksums of every request. Default true for AWS, false with an `endpoint`: not all know them. */
  readonly checksums?: boolean;
  /** How long the server may take to begin its answer to a request that carries no file. Default 60 s. */
  readonly requestTimeoutMs?: number;
  /** Default: the SDK's usual chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

const PROBE_PREFIX = '.reelhaul-probe';
const MIN_PART_BYTES = 5 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;
/** Longest silence of the server during a request; a part of a few MB takes seconds. */
const IDLE_TIMEOUT_MS = 60_000;
/** A request with a part of a file: 5 MiB in that time are 17 kB a second. */
const PART_TIMEOUT_MS = 300_000;
/** The longest life of a presigned link. */
const MAX_LINK_SECONDS = 7 * 24 * 3600;

/** Waiting does not mend these: the configuration must change. */
const ADVICE: Readonly<Record<string, string>> = {
  NoSuchBucket: 'the bucket does not exist',
  NotFound: 'the bucket or the object does not exist',
  NoSuchKey: 'nothing is stored there',
  AccessDenied: 'access is denied: the credentials may not do this',
  Forbidden:
    'access is denied: the credentials may not do this (s3:ListBucket is needed to look up a missing key)',
  AllAccessDisabled: 'access is denied: the account is disabled',
  AccountProblem: 'access is denied: there is a problem with the account',
  InvalidAccessKeyId: 'the access key is not known',
  SignatureDoesNotMatch: 'the secret key does not fit the access key',
  AuthorizationHeaderMalformed: 'the region does not fit the bucket',
  PermanentRedirect: 'the bucket is in another region',
  InvalidBucketName: 'the name of the bucket is not allowed',
  CredentialsProviderError:
    'there are no credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role)',
  NotImplemented: 'the server does not support a part of the request; conditionalWrites=false may help',
  InvalidStorageClass: 'the storage class is not known',
  'KMS.NotFoundException': 'the encryption key does not exist',
  'KMS.DisabledException': 'the encryption key is disabled',
};
/** HTTP statuses that pass by themselves, whatever the error is called. */
const PASSING_STATUS: ReadonlySet<number> = new Set([408, 409, 429]);

export function createS3Storage(options: S3StorageOptions): Storage {
  const { bucket, endpoint, conditionalWrites = true } = options;
  const prefix =
    options.prefix === undefined || options.prefix === '' ? '' : `${options.prefix.replace(/\/+$/, '')}/`;
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
      const { ContentLength } = await client.send(
        command,
        signal === undefined ? {} : { abortSignal: signal },
      );
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
        ...(range === undefined ? {} : { Range: `bytes=${range.start}-${range.end}` }),
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
      ...(options.serverSideEncryption === undefined
        ? {}
        : { ServerSideEncryption: options.serverSideEncryption }),
      ...(options.kmsKeyId === undefined ? {} : { SSEKMSKeyId: options.kmsKeyId }),
      ...(options.storageClass === undefined ? {} : { StorageClass: options.storageClass as StorageClass }),
      ...(conditionalWrites ? { IfNoneMatch: '*' } : {}),
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
    let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (;;) {
      const page = await client.send(
        new ListMultipartUploadsCommand({
          Bucket: bucket,
          ...(prefix === '' ? {} : { Prefix: prefix }),
          ...marker,
        }),
      );
      const before = serverTime() - olderThanMs;
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined || Initiated === undefined) continue;
        const isOurs = [...writing].some(({ objectKey }) => objectKey === Key);
        if (isOurs || Initiated.getTime() >= before) continue;
        if (await abortUpload(Key, UploadId)) aborted += 1;
      }
      if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return aborted;
      marker = {
        KeyMarker: page.NextKeyMarker,
        ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
      };
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

function createClient(options: S3StorageOptions): S3Client {
  const { endpoint, region } = options;
  const checksums = (options.checksums ?? endpoint === undefined) ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED';
  return new S3Client({
    // Servers of one's own rarely have regions, but every signature has one.
    ...(region === undefined ? (endpoint === undefined ? {} : { region: 'us-east-1' }) : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    forcePathStyle: options.forcePathStyle ?? false,
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      // A connection that closes without an answer or an error (101) ends nothing but this.
      requestTimeout: options.requestTimeoutMs ?? IDLE_TIMEOUT_MS,
      throwOnRequestTimeout: true,
    },
  });
}

/** The server's clock as its last answer told it, epoch ms: ages are told by the clock that wrote the dates. */
function watchServerTime(client: S3Client): () => number {
  let latest = Date.now();
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      const { headers } = result.response as { headers?: Record<string, string> };
      const at = Date.parse(headers?.['date'] ?? '');
      latest = Number.isNaN(at) ? Date.now() : at;
      return result;
    },
    { step: 'deserialize', name: 'reelhaulServerTime' },
  );
  return () => latest;
}

/**
 * The client, with its bytes stopped by the signal. The uploader's own abort only stops waiting: it would leave the parts
 * that are on their way, and then clean up before they have arrived. What begins and ends an upload is let through: an
 * upload whose id never came back could not be cleaned up, and one that was completed is no longer abandoned.
 */
function abortedBy(signal: AbortSignal, client: S3Client): S3Client {
  const send = (command: Parameters<S3Client['send']>[0]): Promise<unknown> => {
    const carriesBytes = command instanceof UploadPartCommand || command instanceof PutObjectCommand;
    return client.send(command, carriesBytes ? { abortSignal: signal, requestTimeout: PART_TIMEOUT_MS } : {});
  };
  return Object.create(client, { send: { value: send } }) as S3Client;
}

/** To the end, for the sake of what is counted on the way. */
async function readThrough(chunks: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of chunks) void chunk;
}

/** A field of something thrown. Not by class: errors of the platform may come from another realm than ours. */
function fieldOf(error: unknown, name: string): unknown {
  return typeof error === 'object' && error !== null ? (error as Record<string, unknown>)[name] : undefined;
}

/** The HTTP status that an error of the SDK came with. */
function statusOf(error: unknown): number | null {
  const status = fieldOf(fieldOf(error, '$metadata'), 'httpStatusCode');
  return typeof status === 'number' ? status : null;
}

/** Everything that goes wrong with the server, by name and status. */
function asStorageError(error: unknown, what: string): unknown {
  if (
    error instanceof StorageError ||
    error instanceof StorageConflictError ||
    error instanceof InvalidInputError
  ) {
    return error;
  }
  const status = statusOf(error);
  const name = fieldOf(error, 'name');
  if (name === 'KeyTooLongError') {
    // No waiting mends it: it is about this key alone.
    return new InvalidInputError(what, [
      { path: 'key', message: 'expected a name that is short enough for S3' },
    ]);
  }
  const code = fieldOf(error, 'code');
  const advice =
    (typeof name === 'string' && Object.hasOwn(ADVICE, name) ? ADVICE[name] : undefined) ??
    (status === 401 || status === 403 ? ADVICE['AccessDenied'] : undefined);
  // Without an answer: the network, where attempts were made, or something that was wrong before any was.
  const wasTried = typeof code === 'string' || fieldOf(fieldOf(error, '$metadata'), 'attempts') !== undefined;
  const passing = status === null ? wasTried : status >= 500 || status === 200 || PASSING_STATUS.has(status);
  const said = advice ?? (typeof code === 'string' ? code : fieldOf(error, 'message'));
  return new StorageError(`${what}: ${String(said)}.`, advice === undefined && passing, { cause: error });
}
