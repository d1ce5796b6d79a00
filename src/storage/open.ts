/**
 * Opens the storage that `STORAGE_URL` names.
 *
 * - `file:./archive`, `file:archive` (from the working directory), `file:///var/lib/reelhaul`;
 * - `s3://bucket/prefix?region=eu-central-1&endpoint=https://minio.internal:9000&forcePathStyle=true`; all parameters are
 *   in `s3-options.ts`. Credentials come from the SDK's usual chain (environment, profile, instance role), never from the
 *   URL, which ends up in logs.
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidInputError, loadOptional, problemsOf, type Problem, withoutSecrets } from '../errors.js';
import { createLocalStorage } from './local.js';
import { s3Parameters, type S3StorageOptions } from './s3-options.js';
import type { Storage } from './storage.js';

const S3_PACKAGES = ['@aws-sdk/client-s3', '@aws-sdk/lib-storage', '@aws-sdk/s3-request-presigner'];

const PATH = 'STORAGE_URL';

/**
 * Opens it; nothing is read or written yet (`probe` does that).
 * @throws InvalidInputError naming every problem of the URL; MissingPackageError.
 */
export const openStorage = (url: string): Promise<Storage> =>
  loadOptional('STORAGE_URL=s3://…', S3_PACKAGES, async () => {
    const named = readUrl(url);
    if ('root' in named) return createLocalStorage(named);
    // Loaded only here: the SDK is large, and users of a local disk need none of it.
    const { createS3Storage } = await import('./s3.js');
    return createS3Storage(named);
  });

/** What is wrong with the address of a storage; nothing is opened. */
export const storageUrlProblems = (url: string): readonly Problem[] => problemsOf(() => readUrl(url));

function readUrl(url: string): { readonly root: string } | S3StorageOptions {
  if (/^file:/i.test(url)) return { root: readDirectory(url) };
  if (/^s3:/i.test(url)) return readS3Url(url);
  throw refused(`expected file:./directory, file:///directory or s3://bucket/prefix, got ${shown(url)}`);
}

function readDirectory(url: string): string {
  const rest = url.slice('file:'.length);
  try {
    if (/[?#]/.test(rest)) throw new Error('parameters');
    if (rest.startsWith('/')) return fileURLToPath(url);
    const relative = decodeURIComponent(rest);
    if (relative !== '' && !relative.includes('\0')) return resolve(relative);
  } catch {
    // Said below.
  }
  throw refused(`expected file:./directory or file:///directory, got ${shown(url)}`);
}

function readS3Url(url: string): S3StorageOptions {
  const parsed =
    /^s3:\/\/(?:(?<user>[^/?#]*)@)?(?<bucket>[^/?#]*)(?<prefix>\/[^?#]*)?(?:\?(?<query>[^#]*))?$/i.exec(url);
  if (parsed?.groups === undefined) throw refused(`expected s3://bucket/prefix, got ${shown(url)}`);
  const { user, bucket = '', prefix = '', query = '' } = parsed.groups;
  const problems: Problem[] = [];
  const complain = (message: string) => problems.push({ path: PATH, message });
  if (user !== undefined)
    complain('expected no credentials in it: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead');
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$/.test(bucket))
    complain(`expected the name of a bucket after s3://, got ${JSON.stringify(bucket)}`);
  const plainPrefix = decodedOrNull(prefix.replace(/^\/+|\/+$/g, ''));
  if (plainPrefix === null || plainPrefix.split('/').some((part) => part === '.' || part === '..'))
    complain(`expected a prefix without . and .. in it, got ${JSON.stringify(prefix)}`);
  const given: Record<string, string> = Object.fromEntries(new URLSearchParams(query));
  const parameters = s3Parameters.safeParse(given);
  for (const issue of parameters.error?.issues ?? []) {
    const isUnknown = issue.code === 'unrecognized_keys';
    for (const name of isUnknown ? issue.keys : issue.path.map(String)) {
      const message = isUnknown
        ? `expected one of ${Object.keys(s3Parameters.shape).join(', ')}`
        : `${issue.message}, got ${shown(given[name] ?? '')}`;
      problems.push({ path: `${PATH} ${name}`, message });
    }
  }
  if (problems.length > 0) throw new InvalidInputError(REFUSED, problems);
  return { ...parameters.data, bucket, prefix: plainPrefix ?? '' };
}

const REFUSED = 'The storage cannot be opened';
const refused = (message: string) => new InvalidInputError(REFUSED, [{ path: PATH, message }]);

/** For messages: what may be credentials is left out. */
const shown = (text: string): string => JSON.stringify(withoutSecrets(text).slice(0, 200));

function decodedOrNull(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
