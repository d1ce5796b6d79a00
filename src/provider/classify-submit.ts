/**
 * What the answer to a submit means for our money: the table "submit" of `docs/provider.md`. Pure; decided by status
 * and code, never by message text, in this order: a task id in a 2xx or 5xx → 429 → a quota code → the HTTP
 * status → the body's code. Whatever could have created a task is never called `notAccepted` or `rejected`.
 */
import {
  isMarkup,
  keepAnswer,
  quote,
  readRetryAfterMs,
  type AnswerContext,
  type Exchange,
} from './answer.js';
import { parseJson } from './json.js';
import type { SubmitOutcome } from './outcomes.js';
import { isSuccessCode, readEnvelope, type Envelope } from './wire.js';

/** What a 500 or 503 means: `unconfirmed` (the gateway may have accepted) or `retry` (the owner says it never does). */
export type Submit5xxPolicy = 'unconfirmed' | 'retry';

export interface SubmitContext extends AnswerContext {
  readonly submit5xxPolicy: Submit5xxPolicy;
  /** Codes (lower case) of a 503 that says: nothing was accepted. */
  readonly notAcceptedCodes: readonly string[];
}

const QUOTA_CODES = ['quota_not_enough', 'insufficient_user_quota', 'pre_consume_token_quota_failed'];
const RATE_CODES = ['429', 'rate_limit_exceeded', 'too_many_requests'];
const INVALID_CODE = 'invalid_request';
/** 4xx that speak of time and order, not of the request: a proxy may say them after the gateway took the task. */
const UNCLEAR_4XX = [408, 409, 425, 499];
/** 4xx of an address or a proxy: this API answers none of its submits so. */
const NOT_THE_API_4XX = [404, 405, 407, 421];
/** 5xx that the owner may declare to be refusals; every other 5xx comes from something in front of the gateway. */
const POLICY_5XX = [500, 503];

export function classifySubmit(exchange: Exchange, context: SubmitContext): SubmitOutcome {
  const { httpStatus, failure, sent } = exchange;
  const answer = keepAnswer('submit', exchange, context);
  const envelope = readEnvelope(parseJson(exchange.body));
  const codes = [envelope?.code, envelope?.errorCode].filter((code) => typeof code === 'string');
  const has = (...wanted: string[]) => codes.some((code) => wanted.includes(code.toLowerCase()));
  const say = (text: string) => quote(text, context.apiKey);
  const said = envelope?.message ? `: ${envelope.message}` : '';

  const told = (text: string) => ({ message: say(text), answer });
  const unconfirmed = (reason: string, text: string): SubmitOutcome => ({
    kind: 'unconfirmed',
    reason,
    ...told(text),
  });
  const notAccepted = (reason: 'connect' | 'rateLimited' | 'serverError', text: string): SubmitOutcome => ({
    kind: 'notAccepted',
    reason,
    retryAfterMs: readRetryAfterMs(exchange, context.at),
    ...told(text),
  });
  const refused = (reason: 'key' | 'quota', text: string): SubmitOutcome => ({
    kind: 'refused',
    reason,
    ...told(text),
  });
  const misrouted = (text: string): SubmitOutcome => ({
    kind: 'misrouted',
    ...told(`${text}: this is not the API. Check COMETAPI_BASE_URL and what stands in front of it.`),
  });
  const rejected = (fallbackCode: string, text: string): SubmitOutcome => ({
    kind: 'rejected',
    code: say(failureCode(envelope) ?? fallbackCode),
    forbidden: httpStatus === 403,
    ...told(envelope?.message ?? text),
  });

  if (httpStatus === null) {
    const text = failure?.message ?? 'No answer came.';
    return sent ? unconfirmed(failure?.reason ?? 'internal', text) : notAccepted('connect', text);
  }
  const family = Math.floor(httpStatus / 100);

  if ((family === 2 || family === 5) && envelope?.submittedTaskId) {
    return {
      kind: 'accepted',
      taskId: envelope.submittedTaskId,
      warning: acceptanceWarning(httpStatus, envelope, say),
      answer,
    };
  }
  if (httpStatus === 429) return notAccepted('rateLimited', `The provider answered 429${said}`);
  if (has(...QUOTA_CODES)) return refused('quota', `The quota of the key is used up${said}`);

  switch (family) {
    case 2:
      break;
    case 3:
      return misrouted(`The address answered with a redirect (${httpStatus})`);
    case 4:
      if (httpStatus === 401) return refused('key', `The provider refuses the key (401)${said}`);
      if (httpStatus === 402) return refused('quota', `The provider wants to be paid (402)${said}`);
      if (UNCLEAR_4XX.includes(httpStatus))
        return unconfirmed('httpStatus', `The provider answered ${httpStatus}${said}`);
      if (NOT_THE_API_4XX.includes(httpStatus)) return misrouted(`The address answered ${httpStatus}${said}`);
      if (httpStatus === 403 && !isEnvelope(envelope))
        return misrouted(`The address answered 403 with ${describeBody(exchange)}`);
      return rejected(`http_${httpStatus}`, `The provider answered ${httpStatus}.`);
    case 5:
      // A cut body could have named a task: as unclear as no answer at all, whatever the policy says.
      if (failure)
        return unconfirmed(failure.reason, `The answer ${httpStatus} broke off: ${failure.message}`);
      if (httpStatus === 500 && has(INVALID_CODE))
        return rejected(INVALID_CODE, 'The provider answered 500.');
      if (httpStatus === 503 && has(...context.notAcceptedCodes))
        return notAccepted('serverError', `The provider has no way to serve this request now (503)${said}`);
      if (POLICY_5XX.includes(httpStatus) && context.submit5xxPolicy === 'retry') {
        return notAccepted('serverError', `The provider answered ${httpStatus}${said}`);
      }
      return unconfirmed('serverError', `The provider answered ${httpStatus}${said}`);
    default:
      return unconfirmed('httpStatus', `The provider answered with the status ${httpStatus}${said}`);
  }

  // 2xx without a task id.
  if (failure) return unconfirmed(failure.reason, `The answer ${httpStatus} broke off: ${failure.message}`);
  if (!envelope) {
    return unconfirmed('unreadable', `The provider answered ${httpStatus} with ${describeBody(exchange)}.`);
  }
  // "All is well" without an id is unclear, even when an error object stands beside it.
  if (isSuccessCode(envelope.code)) {
    return unconfirmed(
      'noTaskId',
      `The provider answered success (${envelope.code}) without a task id${said}`,
    );
  }
  if (has(...RATE_CODES)) return notAccepted('rateLimited', `The provider is at its limit${said}`);
  if (failureCode(envelope) !== null || envelope.hasError)
    return rejected('error', 'The provider gave no reason.');
  return unconfirmed(
    'noTaskId',
    `The provider answered ${httpStatus} without a task id and without a code${said}`,
  );
}

/** The API's own error envelopes: `{error: {…}}`, or a `code` beside a message. Firewalls write JSON of other kinds. */
function isEnvelope(envelope: Envelope | null): boolean {
  return envelope !== null && (envelope.hasError || envelope.code !== null);
}

function describeBody(exchange: Exchange): string {
  if (isMarkup(exchange)) return 'HTML';
  if (exchange.body.trim() === '') return 'nothing';
  return parseJson(exchange.body) === undefined ? 'no readable JSON object' : 'JSON of another kind';
}

/** The code that says what is wrong: the error's own before the envelope's; null when there is none. */
function failureCode(envelope: Envelope | null): string | null {
  const codes = [envelope?.errorCode ?? null, envelope?.code ?? null];
  return codes.find((code) => code !== null && !isSuccessCode(code)) ?? null;
}

/** An id beside a complaint: the task is followed, and the complaint kept for people. */
function acceptanceWarning(
  httpStatus: number,
  envelope: Envelope,
  say: (text: string) => string,
): string | null {
  const code = failureCode(envelope);
  const complaints = [
    httpStatus >= 500 ? `the status ${httpStatus}` : null,
    code === null ? null : `the code ${code}`,
    envelope.hasError && code === null ? 'an error' : null,
  ].filter((complaint) => complaint !== null);
  if (complaints.length === 0) return null;
  const said = envelope.message ? `: ${envelope.message}` : '.';
  return say(`The answer named a task beside ${complaints.join(' and ')}${said}`);
}
