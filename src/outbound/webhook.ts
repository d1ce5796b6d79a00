/**
 * Sends one notification: a POST signed as the Standard Webhooks specification says
 * (https://www.standardwebhooks.com). The address comes from an app, so it is not trusted: private addresses are refused
 * after DNS unless `NOTIFY_ALLOW_HOSTS` names them, redirects are not followed, nothing of the answer's body is read.
 * The tenant sees the reason of a failure. It does not say why there was no connection, since a tenant could scan ports that
 * way; `detail` says it, for the log.
 */
import { Webhook } from 'standardwebhooks';
import type { AllowedHosts } from './address-rules.js';
import { codeOf } from './body.js';
import { guardedAgent, HostRefusedError, resolveBySystem, type ResolvedAddress } from './guarded-agent.js';
import { parseRetryAfterMs, send } from './http.js';
import { withinLimit } from './limit.js';

export interface Message {
  readonly url: string;
  /** `webhook-id`: the same at every try. */
  readonly id: string;
  /** Named in `webhook-tenant`; its secret signs. */
  readonly tenant: string;
  /** JSON; signed byte by byte. */
  readonly body: string;
}

export interface SendOptions {
  /** `whsec_…`, newest first: each signs, so that a secret can be replaced without a gap. */
  readonly secrets: readonly string[];
  readonly allowed: AllowedHosts;
  /** The whole call, milliseconds. */
  readonly timeoutMs: number;
  readonly now: () => number;
  readonly signal: AbortSignal;
  /** DNS; all addresses of a name. Default that of the system. */
  readonly resolve?: (hostname: string) => Promise<readonly ResolvedAddress[]>;
}

interface NotSent {
  /** For the tenant. */
  readonly reason: string;
  /** For the log only; null when there is no more to say. */
  readonly detail: string | null;
}

export type Sent =
  | { readonly kind: 'delivered' }
  /** Worth another try; `retryAfterMs` is the receiver's wish. `away`: it did not answer at all. */
  | ({ readonly kind: 'failed'; readonly retryAfterMs: number | null; readonly away: boolean } & NotSent)
  /** The same message would be refused again: the host may not be reached, or the receiver said 410 Gone. */
  | ({ readonly kind: 'refused' } & NotSent);

/** A receiver may be down for an afternoon. */
const MAX_RETRY_AFTER_MS = 4 * 3_600_000;

class NoAnswerError extends Error {}

/** Rejects only with the reason of `signal`. */
export async function sendNotification(message: Message, options: SendOptions): Promise<Sent> {
  const { secrets, timeoutMs, signal, now } = options;
  if (secrets.length === 0) return failed('NOTIFY_SECRET is not set on this worker: nothing can be signed');
  try {
    const { status, headers } = await withinLimit(
      timeoutMs,
      signal,
      (within) => post(message, { ...options, signal: within }),
      () => new NoAnswerError(`no answer within ${timeoutMs} ms`),
    );
    if (status >= 200 && status < 300) return { kind: 'delivered' };
    if (status === 410) return { kind: 'refused', reason: 'the receiver answered 410 Gone', detail: null };
    const redirect = status >= 300 && status < 400 ? '; redirects are not followed' : '';
    const retryAfterMs = parseRetryAfterMs(headers['retry-after'] ?? '', now(), MAX_RETRY_AFTER_MS);
    return { ...failed(`the receiver answered ${status}${redirect}`), retryAfterMs };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof HostRefusedError)
      return { kind: 'refused', reason: error.message, detail: error.detail };
    if (error instanceof NoAnswerError) return { ...failed(error.message), away: true };
    return { ...failed('there was no connection, or it broke'), detail: codeOf(error), away: true };
  }
}

/** Resolves with the head of the answer; the rest is thrown away. */
async function post(message: Message, options: SendOptions) {
  const { allowed, signal, secrets, now, resolve = resolveBySystem } = options;
  const url = new URL(message.url);
  const agent = await guardedAgent(url, {
    allowed,
    onlyAllowed: false,
    setting: 'NOTIFY_ALLOW_HOSTS',
    resolve,
    signal,
  });
  const headers = signedHeaders(message, secrets, now());
  const answer = await send(
    { method: 'POST', url, headers, body: Buffer.from(message.body), signal },
    { agent },
  );
  answer.body.on('error', () => {});
  answer.body.destroy();
  return answer;
}

function signedHeaders({ id, tenant, body }: Message, secrets: readonly string[], now: number) {
  const at = new Date(now);
  return {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'user-agent': 'reelhaul',
    'webhook-id': id,
    // A header holds no letters beyond ASCII, which a tenant's name may have.
    'webhook-tenant': encodeURIComponent(tenant),
    'webhook-timestamp': String(Math.floor(now / 1000)),
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
  };
}

const failed = (reason: string): Sent & { kind: 'failed' } => ({
  kind: 'failed',
  reason,
  detail: null,
  retryAfterMs: null,
  away: false,
});
