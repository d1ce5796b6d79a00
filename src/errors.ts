/**
 * Errors that reelhaul shows to people and programs. Each has a stable `code`; decide by it or by class, never by the
 * message. A message says what was expected and what was got.
 */

/** One thing wrong with an input: where (`request.options.seconds`, `REDIS_URL`) and what was expected. */
export interface Problem {
  readonly path: string;
  readonly message: string;
}

/** The base of all of them. */
export class ReelhaulError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** An answer stays small however much is wrong with an input. */
const MAX_PROBLEMS = 20;
const MAX_PROBLEM_CHARS = 400;

const shorten = (text: string) =>
  text.length > MAX_PROBLEM_CHARS ? `${text.slice(0, MAX_PROBLEM_CHARS - 1)}…` : text;

/** The first problems, each cut to a readable length, and how many more there are. */
function bounded(problems: readonly Problem[]): Problem[] {
  const all = problems.length <= MAX_PROBLEMS + 1;
  const named = problems
    .slice(0, all ? problems.length : MAX_PROBLEMS)
    .map(({ path, message }) => ({ path: shorten(path), message: shorten(message) }));
  const more = problems.length - named.length;
  return more === 0 ? named : [...named, { path: '', message: `and ${more} more problems` }];
}

/** An input from outside was refused; nothing was stored. `problems` names each one, the first 20 if there are more. */
export class InvalidInputError extends ReelhaulError {
  readonly problems: readonly Problem[];
  constructor(what: string, problems: readonly Problem[]) {
    super(
      'invalid_input',
      `${what}:\n${bounded(problems)
        .map(({ path, message }) => `  ${path}: ${message}`)
        .join('\n')}`,
    );
    this.problems = bounded(problems);
  }
}

/** What is wrong with an input; empty when `read` refuses nothing. */
export function problemsOf(read: () => unknown): readonly Problem[] {
  try {
    read();
    return [];
  } catch (error) {
    if (error instanceof InvalidInputError) return error.problems;
    throw error;
  }
}

/** The environment cannot be used. Same shape as an invalid input. */
export class ConfigError extends InvalidInputError {
  constructor(problems: readonly Problem[]) {
    super('The configuration cannot be used', problems);
  }
}

/** Redis is unreachable, too old or set up so that jobs could be lost. */
export class RedisUnusableError extends ReelhaulError {
  constructor(message: string, options?: ErrorOptions) {
    super('redis_unusable', message, options);
  }
}

/** A package that only some set-ups need is not installed. */
export class MissingPackageError extends ReelhaulError {
  constructor(purpose: string, packages: readonly string[], options?: ErrorOptions) {
    super(
      'missing_package',
      `${purpose} needs packages that are not installed. Run: npm install ${packages.join(' ')}`,
      options,
    );
  }
}

/** Loads a module that imports optional packages. @throws MissingPackageError */
export async function loadOptional<T>(
  purpose: string,
  packages: readonly string[],
  load: () => Promise<T>,
): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw error;
    throw new MissingPackageError(purpose, packages, { cause: error });
  }
}

/** Redis cannot be reached now, and the write was not sent: nothing was recorded. */
export class RedisAwayError extends RedisUnusableError {
  constructor() {
    super('Redis cannot be reached just now. Nothing was recorded: ask again later.');
  }
}

/** Redis answers, and takes no writes now: what was asked for was not recorded. */
export class WritesRefusedError extends ReelhaulError {
  /** @param refusal its own word for why, such as `OOM` */
  constructor(refusal: string, options?: ErrorOptions) {
    super(
      'writes_refused',
      `Redis takes no writes just now (${refusal}). Nothing was recorded: ask again later.`,
      options,
    );
  }
}

/** No generation has this id, or it was erased. */
export class NotFoundError extends ReelhaulError {
  /** @param erasedAt epoch ms */
  constructor(generationId: string, erasedAt: number | null = null) {
    super(
      'not_found',
      erasedAt === null
        ? `There is no generation ${generationId}.`
        : `Generation ${generationId} was erased at ${new Date(erasedAt).toISOString()}.`,
    );
  }
}

/** A newer reelhaul wrote this; what it means is not guessed at, and nothing is changed. */
export class NewerRecordError extends ReelhaulError {
  constructor(generationId: string, version: string, known: number) {
    super(
      'newer_record',
      `Generation ${generationId} was written by a newer reelhaul (record version ${version}, known is ${known}). Upgrade reelhaul here.`,
    );
  }
}

/** The idempotency key was used before for a different request. */
export class IdempotencyConflictError extends ReelhaulError {
  readonly generationId: string;
  constructor(idempotencyKey: string, generationId: string) {
    super(
      'idempotency_conflict',
      `The idempotency key ${JSON.stringify(idempotencyKey)} belongs to generation ${generationId}, whose request is different.`,
    );
    this.generationId = generationId;
  }
}

/** What was asked for does not fit the state the generation is in. */
export class StateConflictError extends ReelhaulError {
  constructor(message: string) {
    super('state_conflict', message);
  }
}

/** Doing this may be billed a second time, and the caller did not say that this is accepted (`allowRebill`). */
export class RebillNotAllowedError extends ReelhaulError {
  constructor(generationId: string) {
    super(
      'rebill_not_allowed',
      `Submitting generation ${generationId} again may be billed a second time. Say allowRebill to accept that.`,
    );
  }
}

/** Erasing it now would hide whether its task is billed, and the caller did not say that this is accepted (`evenIfBilled`). */
export class MayBeBilledError extends ReelhaulError {
  constructor(generationId: string, state: string) {
    super(
      'may_be_billed',
      `Generation ${generationId} is ${state}, and may still be billed: nothing was erased. Cancel it and erase it when its task ` +
        'has ended, or say evenIfBilled: then its last known bill stays, and no later one is noticed.',
    );
  }
}

/** `waitFor` gave up waiting; the generation goes on. */
export class WaitTimeoutError extends ReelhaulError {
  constructor(generationId: string, timeoutMs: number) {
    super('wait_timeout', `Generation ${generationId} did not finish within ${timeoutMs} ms.`);
  }
}

/**
 * Storage could not be used. `retryable` tells whether it may pass with time (full disk, server down) or the
 * configuration must change first (both wait; the second also raises an alarm).
 */
export class StorageError extends ReelhaulError {
  readonly retryable: boolean;
  constructor(message: string, retryable: boolean, options?: ErrorOptions) {
    super('storage_error', message, options);
    this.retryable = retryable;
  }
}

/** A different file already has this key; it was left as it is. */
export class StorageConflictError extends ReelhaulError {
  constructor(key: string) {
    super('storage_conflict', `A different file is already stored as ${key}; it was not replaced.`);
  }
}

/** What was thrown, or the reason of an abort, as an error. */
export const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason));

/** Anything up to the last @ before path and parameters end: a password that was not encoded may hold slashes. */
const LOGIN = /\/\/[^\s?#"',]*@/g;
const SECRET_PARAMETER =
  /([?&](?:key|sig|[^=&\s]*(?:secret|token|passw|signature|credential|access[-_]?key|api[-_]?key)[^=&\s]*)=)[^&\s"']+/gi;

/** The same text without user and password in its addresses, and without parameters that are secret by their name. */
export function withoutSecrets(text: string): string {
  return text.replaceAll(LOGIN, '//…@').replaceAll(SECRET_PARAMETER, '$1…');
}

/** A task of the provider belongs to another generation already. */
export class TaskTakenError extends ReelhaulError {
  readonly generationId: string;
  constructor(generationId: string) {
    super('task_taken', `The task belongs to generation ${generationId}.`);
    this.generationId = generationId;
  }
}
