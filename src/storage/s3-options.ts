/** The parameters of an `s3:` URL, which are the options of the storage behind it. */
import { z } from 'zod';

const text = (form: RegExp, what: string) => z.string().regex(form, `expected ${what}`).optional();

const flag = z
  .enum(['true', 'false'], 'expected true or false')
  .transform((value) => value === 'true')
  .optional();

function count(min: number, max: number) {
  const expected = `expected a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d{1,12}$/, expected)
    .transform(Number)
    .refine((value) => value >= min && value <= max, expected)
    .optional();
}

function isEndpoint(address: string): boolean {
  if (!URL.canParse(address)) return false;
  const { protocol, username, password, pathname, search } = new URL(address);
  return /^https?:$/.test(protocol) && username + password + search === '' && pathname === '/';
}

export const s3Parameters = z.strictObject({
  /** Default: the SDK's usual places; `us-east-1` when there is an `endpoint`. */
  region: text(/^[a-z0-9-]+$/i, 'a region such as eu-central-1'),
  /** For servers other than AWS. */
  endpoint: z
    .string()
    .refine(isEndpoint, 'expected an http or https URL without user name and path')
    .optional(),
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`. Default false. */
  forcePathStyle: flag,
  /** Says `If-None-Match: *`. Default true; false for servers that refuse it. */
  conditionalWrites: flag,
  /** Sends and checks CRC checksums of every request. Default true for AWS, false with an `endpoint`: not all know them. */
  checksums: flag,
  sse: z.enum(['AES256', 'aws:kms', 'aws:kms:dsse'], 'expected AES256, aws:kms or aws:kms:dsse').optional(),
  sseKmsKeyId: text(/./, 'the id or ARN of a KMS key'),
  storageClass: text(/^[A-Z0-9_]+$/, 'a storage class such as STANDARD_IA'),
  /** Default `private, max-age=31536000, immutable`: a key never changes its bytes. */
  cacheControl: text(/^[\x20-\x7e]+$/, 'a Cache-Control value such as private, max-age=3600'),
  /** At least 5 MiB, which is the default. Memory per upload is about this times `partsAtOnce`. */
  partSizeBytes: count(5 * 1024 * 1024, 5 * 1024 ** 3),
  /** Parts of one file on their way at once. Default 2. */
  partsAtOnce: count(1, 64),
});

export interface S3StorageOptions extends Readonly<z.output<typeof s3Parameters>> {
  readonly bucket: string;
  /** Goes before every key, with a `/` between. Default none. */
  readonly prefix?: string;
  /** How long the server may take to begin its answer to a request that carries no file. Default 60 s. */
  readonly requestTimeoutMs?: number;
  /** Default: the SDK's usual chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}
