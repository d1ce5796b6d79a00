/** Exchanges and classifications as tests write them: a status, a body, and what differs from a whole answer. */
import type { Exchange, FailureReason } from '../../src/provider/answer.js';
import { classifyPoll } from '../../src/provider/classify-poll.js';
import { classifySubmit, type Submit5xxPolicy } from '../../src/provider/classify-submit.js';

export const AT = Date.UTC(2026, 2, 13, 12, 0, 0);
export const API_KEY = 'sk-0123456789abcdef';
export const TASK_ID = 'task-1';

/** A whole answer; a body that is not a string is sent as JSON. */
export function answered(
  httpStatus: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Exchange {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return { httpStatus, headers, body: text, failure: null, sent: true };
}

/** An answer that broke off, or never came (`httpStatus` null). */
export function broken(
  reason: FailureReason,
  { httpStatus = null as number | null, body = '', sent = true } = {},
): Exchange {
  return { httpStatus, headers: {}, body, failure: { reason, message: 'it broke' }, sent };
}

export function submitOf(
  exchange: Exchange,
  submit5xxPolicy: Submit5xxPolicy = 'unconfirmed',
  notAcceptedCodes: readonly string[] = ['model_not_found'],
) {
  return classifySubmit(exchange, { at: AT, apiKey: API_KEY, submit5xxPolicy, notAcceptedCodes });
}

export function pollOf(exchange: Exchange, taskId = TASK_ID) {
  return classifyPoll(exchange, { at: AT, apiKey: API_KEY, taskId });
}
