/**
 * Opens the storage that `STORAGE_URL` names.
 *
 * - `file:./archive`, `file:archive` (from the working directory), `file:///var/lib/reelhaul`;
 * - `s3://bucket/prefix?region=eu-central-1&endpoint=https://minio.internal:9000&forcePathStyle=true`; all parameters are
 *   in `S3_PARAMETERS`. Credentials come from the SDK's usual chain (environment, profile, instance role), never from the
 *   URL, which ends up in logs.
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidInputError, loadOptional, type Problem, withoutSecrets } from '../errors.js';
import { createLocalStorage } from './local.js';
import type { S3StorageOptions } from './s3-client.js';
import type { Storage } from './storage.js';

const S3_PACKAGES = ['@aws-sdk/client-s3', '@aws-sdk/lib-storage', '@aws-sdk/s3-request-presigner'];

export interface OpenStorageOptions {
  /** Where `file:./…` starts. Default the working directory. */
  readonly baseDirectory?: string;
  /** What the URL is called in problems. Default `STORAGE_URL`. */
  readonly path?: string;
}

/** What a parameter of an `s3:` URL takes, and how it is read; null when the text is none of it. */
interface Parameter {
  readonly expected: string;
  readonly read: (text: string) => Partial<S3StorageOptions> | null;
}

const S3_PARAMETERS: Readonly<Record<string, Parameter>> = {
  region: {
    expected: 'a region such as eu-central-1',
    read: (text) => (/^[a-z0-9-]+$/i.test(text) ? { region: text } : null),
  },
  endpoint: {
    expected: 'an http or https URL without user name and path',
    read: (text) => (isEndpoint(text) ? { endpoint: text } : null),
  },
  forcePathStyle: flag((forcePathStyle) => ({ forcePathStyle })),
  conditionalWrites: flag((conditionalWrites) => ({ conditionalWrites })),
  checksums: flag((checksums) => ({ checksums })),
  sse: {
    expected: 'AES256, aws:kms or aws:kms:dsse',
    read: (text) =>
      text === 'AES256' || text === 'aws:kms' || text === 'aws:kms:dsse'
        ? { serverSideEncryption: text }
        : null,
  },
  sseKmsKeyId: {
    expected: 'the id or ARN of a KMS key',
    read: (text) => (text === '' ? null : { kmsKeyId: text }),
  },
  storageClass: {
    expected: 'a storage class such as STANDARD_IA',
    read: (text) => (/^[A-Z0-9_]+$/.test(text) ? { storageClass: text } : null),
  },
  cacheControl: {
    expected: 'a Cache-Control value such as private, max-age=3600',
    read: (text) => (/^[\x20-\x7e]+$/.test(text) ? { cacheControl: text } : null),
  },
  partSizeBytes: count(5 * 1024 * 1024, 5 * 1024 ** 3, (partSizeBytes) => ({ partSizeBytes })),
  partsAtOnce: count(1, 64, (partsAtOnce) => ({ partsAtOnce })),
};

/**
 * Opens it; nothing is read or written yet (`probe` does that).
 * @throws InvalidInputError naming every problem of the URL; MissingPackageError.
 */
export const openStorage = (url: string, options: OpenStorageOptions = {}): Promise<Storage> =>
  loadOptional('STORAGE_URL=s3://…', S3_PACKAGES, () => openNamed(url, options));

async function openNamed(url: string, options: OpenStorageOptions): Promise<Storage> {
  const { path = 'STORAGE_URL', baseDirectory = process.cwd() } = options;
  if (/^file:/i.test(url)) {
    return createLocalStorage({ root: readDirectory(url, baseDirectory, path) });
  }
  if (/^s3:/i.test(url)) {
    const settings = readS3Url(url, path);
    // Loaded only here: the SDK is large, and users of a local disk need none of it.
    const { createS3Storage } = await import('./s3.js');
    return createS3Storage(settings);
  }
  throw unknownScheme(url, path);
}

/** What is wrong with the address of a storage; nothing is opened. */
export function storageUrlProblems(url: string): readonly Problem[] {
  const path = 'STORAGE_URL';
  try {
    if (/^file:/i.test(url)) readDirectory(url, '/', path);
    else if (/^s3:/i.test(url)) readS3Url(url, path);
    else throw unknownScheme(url, path);
    return [];
  } catch (error) {
    if (error instanceof InvalidInputError) return error.problems;
    throw error;
  }
}

function unknownScheme(url: string, path: string): InvalidInputError {
  return refused([
    {
      path,
      message: `expected file:./directory, file:///directory or s3://bucket/prefix, got ${shown(url)}`,
    },
  ]);
}

function readDirectory(url: string, baseDirectory: string, path: string): string {
  const rest = url.slice('file:'.length);
  const expected = 'expected file:./directory or file:///directory';
  try {
    if (/[?#]/.test(rest)) throw new Error('parameters');
    if (rest.startsWith('/')) return fileURLToPath(url);
    const relative = decodeURIComponent(rest);
    if (relative !== '' && !relative.includes('\0')) return resolve(baseDirectory, relative);
  } catch {
    // Said below.
  }
  throw refused([{ path, message: `${expected}, got ${shown(url)}` }]);
}

function readS3Url(url: string, path: string): S3StorageOptions {
  const parsed =
    /^s3:\/\/(?:(?<user>[^/?#]*)@)?(?<bucket>[^/?#]*)(?<prefix>\/[^?#]*)?(?:\?(?<query>[^#]*))?$/i.exec(url);
  if (parsed?.groups === undefined) {
    throw refused([{ path, message: `expected s3://bucket/prefix, got ${shown(url)}` }]);
  }
  const problems: Problem[] = [];
  const complain = (where: string, message: string): void => {
    problems.push({ path: where, message });
  };
  const { user, bucket = '', prefix = '', query = '' } = parsed.groups;
  if (user !== undefined) {
    complain(path, 'expected no credentials in it: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead');
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$/.test(bucket)) {
    complain(path, `expected the name of a bucket after s3://, got ${JSON.stringify(bucket)}`);
  }
  const plainPrefix = decodedOrNull(prefix.replace(/^\/+|\/+$/g, ''));
  if (plainPrefix === null || plainPrefix.split('/').some((part) => part === '.' || part === '..')) {
    complain(path, `expected a prefix without . and .. in it, got ${JSON.stringify(prefix)}`);
  }
  let settings: S3StorageOptions = { bucket, prefix: plainPrefix ?? '' };
  for (const [name, text] of new URLSearchParams(query)) {
    const parameter = Object.hasOwn(S3_PARAMETERS, name) ? S3_PARAMETERS[name] : undefined;
    if (parameter === undefined) {
      complain(`${path} ${name}`, `expected one of ${Object.keys(S3_PARAMETERS).join(', ')}`);
      continue;
    }
    const read = parameter.read(text);
    if (read === null) complain(`${path} ${name}`, `expected ${parameter.expected}, got ${shown(text)}`);
    else settings = { ...settings, ...read };
  }
  if (problems.length > 0) throw refused(problems);
  return settings;
}

function refused(problems: readonly Problem[]): InvalidInputError {
  return new InvalidInputError('The storage cannot be opened', problems);
}

/** For messages: what may be credentials is left out. */
function shown(text: string): string {
  return JSON.stringify(withoutSecrets(text).slice(0, 200));
}

function isEndpoint(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, pathname, search } = new URL(text);
  return /^https?:$/.test(protocol) && username + password + search === '' && pathname === '/';
}

function flag(use: (value: boolean) => Partial<S3StorageOptions>): Parameter {
  return {
    expected: 'true or false',
    read: (text) => (text === 'true' || text === 'false' ? use(text === 'true') : null),
  };
}

function count(min: number, max: number, use: (value: number) => Partial<S3StorageOptions>): Parameter {
  return {
    expected: `a whole number from ${min} to ${max}`,
    read: (text) =>
      /^\d{1,12}$/.test(text) && Number(text) >= min && Number(text) <= max ? use(Number(text)) : null,
  };
}

function decodedOrNull(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
