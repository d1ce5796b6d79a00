/**
 * Every answer that is not a success: `application/problem+json` (RFC 9457), with the stable `code` of the error and,
 * where fields were wrong, `problems` naming each one. Never a stack, and never a message that was not written for clients.
 */
import { STATUS_CODES } from 'node:http';
import type { HttpBindings } from '@hono/node-server';
import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { InvalidInputError, ReelhaulError, type Problem } from '../errors.js';
import { refusalOf, type RedisConnection } from '../redis/connect.js';
import { isAway } from '../redis/write-errors.js';

export interface ProblemDocument {
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly problems?: readonly Problem[];
}

/** An answer of the HTTP layer itself; thrown anywhere in a route. */
export class HttpError extends HTTPException {
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    status: ContentfulStatusCode,
    code: string,
    detail: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(status, { message: detail });
    this.code = code;
    this.headers = headers;
  }
}

const STATUS_OF_CODE: Readonly<Record<string, ContentfulStatusCode>> = {
  invalid_input: 422,
  not_found: 404,
  idempotency_conflict: 409,
  state_conflict: 409,
  rebill_not_allowed: 409,
  may_be_billed: 409,
  storage_error: 503,
  redis_unusable: 503,
  newer_record: 503,
  writes_refused: 503,
};

/** What passes when Redis is well again. */
const OF_REDIS: ReadonlySet<string> = new Set(['unavailable', 'redis_unusable', 'writes_refused']);
/** When it may be asked again. */
const ASK_AGAIN_SECONDS = 5;

function document(
  status: number,
  code: string,
  detail: string,
  problems?: readonly Problem[],
): ProblemDocument {
  const title = STATUS_CODES[status] ?? 'Error';
  return { type: 'about:blank', title, status, code, detail, ...(problems ? { problems } : {}) };
}

/** The document of an error that was written for clients; null for an unexpected one. */
export function describeError(error: unknown): ProblemDocument | null {
  if (error instanceof HttpError) return document(error.status, error.code, error.message);
  if (error instanceof InvalidInputError) {
    const [headline = error.message] = error.message.split(':\n');
    return document(422, error.code, headline, error.problems);
  }
  if (!(error instanceof ReelhaulError)) return null;
  const status = STATUS_OF_CODE[error.code];
  if (status === undefined) return null;
  // Where files are stored is the operator's business; the log has it.
  const detail = error.code === 'storage_error' ? 'The storage cannot be used just now.' : error.message;
  return document(status, error.code, detail);
}

/** What an unexpected error means: an outage of Redis, or a bug. */
function unforeseen(error: unknown, redis: RedisConnection): ProblemDocument {
  const refusal = error instanceof Error ? refusalOf(error) : null;
  if (refusal !== null) {
    const detail = `Redis takes no writes just now (${refusal}). Nothing is known to have changed: ask again later.`;
    return document(503, 'writes_refused', detail);
  }
  return isAway(redis)
    ? document(
        503,
        'unavailable',
        'Redis cannot be reached just now. Nothing is known to have changed: ask again.',
      )
    : document(500, 'internal_error', 'Something went wrong here; the log says what.');
}

/** The problem of any error: also of one that comes while Redis is away or takes no writes. */
export function problemOf(error: unknown, redis: RedisConnection): ProblemDocument {
  return describeError(error) ?? unforeseen(error, redis);
}

/** The client went away in the middle of its request: not an error, and the answer has no reader. */
export function isAbandoned(c: Context): boolean {
  const { incoming } = c.env as Partial<HttpBindings>;
  return incoming !== undefined && incoming.destroyed && !incoming.complete;
}

/** Answers with the problem of an error. */
export function answerProblem(c: Context, error: unknown, redis: RedisConnection): Response {
  const problem = problemOf(error, redis);
  const again = OF_REDIS.has(problem.code) ? { 'retry-after': String(ASK_AGAIN_SECONDS) } : {};
  const headers = error instanceof HttpError ? error.headers : again;
  return c.body(JSON.stringify(problem), problem.status as ContentfulStatusCode, {
    'content-type': 'application/problem+json',
    'cache-control': 'no-store',
    ...headers,
  });
}
