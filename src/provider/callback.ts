/**
 * The provider's callbacks: the unguessable address we give it, and a reader of what it posts there. Callbacks carry
 * no signature, so the address is the proof; and what they say is only a hint, so little of it is read.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { keepAnswer, type AnswerContext } from './answer.js';
import { parseJson } from './json.js';
import type { RawAnswer } from '../generation/record.js';
import { isGoingOn } from './classify-poll.js';
import { readTask } from './wire.js';

function mac(secret: string, generationId: string): Buffer {
  return createHmac('sha256', secret).update(`runway-callback:${generationId}`).digest();
}

/** The token of one generation: HMAC-SHA256, 43 characters of base64url. Throws when there is no secret to hide it. */
export function createCallbackToken(secret: string, generationId: string): string {
  if (secret === '') throw new RangeError('expected a callback secret, got an empty text');
  return mac(secret, generationId).toString('base64url');
}

/** Is this the token of that generation? Constant time in the token; false, and no error, for anything else at all. */
export function callbackTokenMatches(secret: string, generationId: string, token: unknown): boolean {
  if (secret === '' || typeof token !== 'string') return false;
  // Over both sides once more, so that they are equally long whatever was sent.
  const expected = mac(secret, createCallbackToken(secret, generationId));
  return timingSafeEqual(expected, mac(secret, token));
}

export interface CallbackAddress {
  /** Where the provider reaches us, without our path; empty or null when it cannot. */
  readonly publicUrl: string | null;
  /** Sent instead then, because leaving the field out is an error for the provider. */
  readonly placeholderUrl: string;
  readonly secret: string;
}

/** The `callback_url` of one generation. */
export function callbackUrl(
  { publicUrl, placeholderUrl, secret }: CallbackAddress,
  generationId: string,
): string {
  if (!publicUrl) return placeholderUrl;
  const token = createCallbackToken(secret, generationId);
  return `${publicUrl.replace(/\/+$/, '')}/callbacks/runway/${encodeURIComponent(generationId)}/${token}`;
}

export interface Callback {
  /** The task it is about; null when it names none. Only `task_id` counts: an `id` may be the event's own. */
  readonly taskId: string | null;
  /** The state word, upper case, for logs. Never a verdict: the poll is. */
  readonly word: string | null;
  /** It says that the task is still going on: no reason to look. Unknown words are one. */
  readonly goingOn: boolean;
}

/** Reads what was posted, bare or wrapped. Never throws, whatever the bytes. */
export function readCallback(body: string | Buffer): Callback {
  const text = typeof body === 'string' ? body : body.toString('utf8');
  const task = readTask(parseJson(text));
  const word = task?.outerWord ?? task?.innerWord ?? null;
  return {
    taskId: task?.taskId ?? null,
    word: word?.toUpperCase().slice(0, 64) ?? null,
    goingOn: word !== null && task?.videoUrl === null && isGoingOn(word.toUpperCase()),
  };
}

/** What was posted, as it is kept on the generation: bounded, and with the API key redacted. */
export function keepCallback(body: string | Buffer, context: AnswerContext): RawAnswer {
  const text = typeof body === 'string' ? body : body.toString('utf8');
  const posted = { httpStatus: null, headers: {}, body: text, failure: null, sent: true };
  return keepAnswer('callback', posted, context);
}
