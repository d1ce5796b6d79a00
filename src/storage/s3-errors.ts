/** What goes wrong with a server that speaks S3, as errors of the storage. */
import { InvalidInputError, StorageConflictError, StorageError } from '../errors.js';

/** These do not pass with time: the configuration must change. */
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

/** A field of something thrown. Not by class: errors of the platform may come from another realm than ours. */
function fieldOf(error: unknown, name: string): unknown {
  return typeof error === 'object' && error !== null ? (error as Record<string, unknown>)[name] : undefined;
}

/** The HTTP status that an error of the SDK came with. */
export function statusOf(error: unknown): number | null {
  const status = fieldOf(fieldOf(error, '$metadata'), 'httpStatusCode');
  return typeof status === 'number' ? status : null;
}

/** Everything that goes wrong with the server, by name and status. */
export function asStorageError(error: unknown, what: string): unknown {
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
    // It does not pass with time: it is about this key alone.
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
