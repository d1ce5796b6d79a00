/**
 * The answer to a call, and the part of it that is kept. An `Exchange` is all that the client saw of one call. The classifiers
 * decide by it alone, and `keepAnswer` makes the bounded, redacted record of it.
 */
import { parseRetryAfterMs } from '../outbound/http.js';
import type { RawAnswer } from '../generation/record.js';

/** Why no whole answer came. Only `connect` and `aborted` can happen before anything was sent. */
export type FailureReason = 'connect' | 'aborted' | 'timeout' | 'connectionLost' | 'tooLarge' | 'internal';

export interface Exchange {
  /** HTTP status; null when no status line was read. */
  readonly httpStatus: number | null;
  /** Header names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body, or as much of it as was read. */
  readonly body: string;
  /** Null exactly when the whole answer was read. */
  readonly failure: { readonly reason: FailureReason; readonly message: string } | null;
  /** False only if surely no byte of the request left: the connection (with TLS: its handshake) was never up. */
  readonly sent: boolean;
}

/** What a classifier is told beside the exchange: the instant (epoch ms) and the key to redact. */
export interface AnswerContext {
  readonly at: number;
  readonly apiKey: string;
}

const MAX_BODY_CHARS = 2048;
const MAX_MESSAGE_CHARS = 500;
const MAX_REQUEST_ID_CHARS = 128;
const REDACTED = '[redacted]';
/** A cut body may end inside the key; a beginning of the key this long at the very end is redacted as well. */
const MIN_PARTIAL_KEY_CHARS = 6;

/** The first `length` characters, never half of a surrogate pair. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = /[\uD800-\uDBFF]/.test(text.charAt(length - 1)) ? length - 1 : length;
  return text.slice(0, end);
}

/** Between parts of our callback address, as an echo may write it: plain, escaped in JSON, URL-encoded once or more. */
const SLASH = String.raw`(?:\\*/|\\+u002f|%(?:25)*2f)`;
/** The token at its end lets its holder post callbacks. What is in front of it, also when a cut ends within, is no secret. */
const CALLBACK_TOKEN = new RegExp(`(callbacks${SLASH}runway${SLASH}[\\w-]{1,64}${SLASH})[\\w-]+`, 'gi');

/** `text` without the API key and without the token of a callback address, in the spellings an echo may use: plain, URL-encoded, escaped in JSON. */
export function redact(text: string, apiKey: string): string {
  const tokenless = text.replaceAll(CALLBACK_TOKEN, `$1${REDACTED}`);
  if (apiKey === '') return tokenless;
  const spellings = new Set([apiKey, JSON.stringify(apiKey).slice(1, -1)]);
  // A lone surrogate has no URL encoding; such a key cannot be echoed that way either.
  if (!/\p{Cs}/u.test(apiKey)) spellings.add(encodeURIComponent(apiKey));
  let clean = tokenless;
  for (const spelling of spellings) clean = clean.replaceAll(spelling, REDACTED);
  for (let length = apiKey.length - 1; length >= MIN_PARTIAL_KEY_CHARS; length -= 1) {
    if (clean.endsWith(apiKey.slice(0, length))) return clean.slice(0, -length) + REDACTED;
  }
  return clean;
}

/** The provider's words for people: redacted, on one line, at most 500 characters. */
export function quote(text: string, apiKey: string): string {
  return cut(
    redact(text, apiKey)
      .replace(/[\p{Cc}\s]+/gu, ' ')
      .trim(),
    MAX_MESSAGE_CHARS,
  );
}

/** The record of this answer. Redaction comes before every cut, or a cut through the key would hide it from it. */
export function keepAnswer(
  call: RawAnswer['call'],
  exchange: Exchange,
  { at, apiKey }: AnswerContext,
): RawAnswer {
  const requestId = exchange.headers['x-oneapi-request-id'];
  return {
    at,
    call,
    httpStatus: exchange.httpStatus,
    requestId: requestId ? cut(redact(requestId, apiKey), MAX_REQUEST_ID_CHARS) : null,
    body: cut(redact(exchange.body, apiKey), MAX_BODY_CHARS),
    error: exchange.failure ? quote(`${exchange.failure.reason}: ${exchange.failure.message}`, apiKey) : null,
  };
}

/** That of an answer; null also when it has none. */
export const readRetryAfterMs = ({ headers }: Exchange, at: number): number | null =>
  parseRetryAfterMs(headers['retry-after'] ?? '', at);

/** Markup where JSON belongs: a login page, a parked domain, a gateway's error page. */
export function isMarkup(exchange: Exchange): boolean {
  const body = exchange.body.trimStart();
  return body.startsWith('<') || (body !== '' && /\bhtml\b/i.test(exchange.headers['content-type'] ?? ''));
}
