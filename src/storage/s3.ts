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
  paginateListObjectsV2,
  ListMultipartUploadsCommand,
  S3Client,
  S3ServiceException,
  type PutObjectCommandInput,
  type ServerSideEncryption,
  type StorageClass,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { InvalidInputError, StorageConflictError, StorageError } from '../errors.js';
import { assertKey } from './keys.js';
import type { PutOptions, Storage, StoredFile } from './storage.js';

export interface S3StorageOptions {
  readonly bucket: string;
  /** Goes before every key, with a `/` between. Default none. */
  readonly prefix?: string;
  /** Default: the SDK's usual places, else `us-east-1` when there is an `endpoint`. */
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
  /** Default: the SDK's usual chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** Epoch milliseconds, to tell how old abandoned uploads are. Default `Date.now`. */
  readonly now?: () => number;
}

const PROBE_PREFIX = '.reelhaul-probe';
const MIN_PART_BYTES = 5 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;
/** Longest silence of the server during a request; a part of a few MB takes seconds. */
const IDLE_TIMEOUT_MS = 60_000;
/** The longest life of a presigned link. */
const MAX_LINK_SECONDS = 7 * 24 * 3600;

/** Waiting does not mend these: the configuration must change. */
const ADVICE: Readonly<Record<string, string>> = {
  NoSuchBucket: 'the bucket does not exist',
  AccessDenied: 'access is denied: the credentials may not do this',
  AllAccessDisabled: 'access is denied: the account is disabled',
  InvalidAccessKeyId: 'the access key is not known',
  SignatureDoesNotMatch: 'the secret key does not fit the access key',
  AuthorizationHeaderMalformed: 'the region does not fit the bucket',
  PermanentRedirect: 'the bucket is in another region',
  InvalidBucketName: 'the name of the bucket is not allowed',
  CredentialsProviderError: 'there are no credentials (AWS_ACCESS_KEY_ID, a profile or a role)',
  NotImplemented: 'the server does not support a part of the request; try conditionalWrites=false',
  InvalidStorageClass: 'the storage class is not known',
  'KMS.NotFoundException': 'the encryption key does not exist',
  'KMS.DisabledException': 'the encryption key is disabled',
};

export function createS3Storage(options: S3StorageOptions): Storage {
  const { bucket, endpoint, now = Date.now, conditionalWrites = true } = options;
  const prefix =
    options.prefix === undefined || options.prefix === '' ? '' : `${options.prefix.replace(/\/+$/, '')}/`;
  const checksums = (options.checksums ?? endpoint === undefined) ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED';
  const region =
    options.region ?? (endpoint === undefined ? undefined : (process.env['AWS_REGION'] ?? 'us-east-1'));
  const client = new S3Client({
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    forcePathStyle: options.forcePathStyle ?? false,
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
  });
  return {} as Storage;
}
