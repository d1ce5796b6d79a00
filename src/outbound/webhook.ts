/**
 * Sends one notification: a POST signed as the Standard Webhooks specification says
 * (https://www.standardwebhooks.com). The address comes from an app, so it is not trusted: private addresses are refused
 * after DNS unless `NOTIFY_ALLOW_HOSTS` names them, redirects are not followed, nothing of the answer's body is read.
 */
import { lookup } from 'node:dns/promises';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Webhook } from 'standardwebhooks';
import type { AllowedHosts } from './address-rules.js';
import { guardedAgent, HostRefusedError, type ResolvedAddress } from './guarded-agent.js';

export interface Message {
  readonly url: string;
  /** `webhook-id`: the same at every try. */
  readonly id: string;
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

export type Sent =
  | { readonly kind: 'delivered' }
  /** Worth another try; `retryAfterMs` is the receiver's wish. */
  | { readonly kind: 'failed'; readonly reason: string; readonly retryAfterMs: number | null }
  /** The same message would be refused again: the host may not be reached, or the receiver said 410 Gone. */
  | { readonly kind: 'refused'; readonly reason: string };

/** Rejects only with the reason of `signal`. */
export async function sendNotification(message: Message, options: SendOptions): Promise<Sent> {
  const { secrets, timeoutMs, signal, now, resolve = (name) => lookup(name, { all: true }) } = options;
  if (secrets.length === 0) return failed('NOTIFY_SECRET is not set on this worker: nothing can be signed');
  signal.throwIfAborted();
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  const either = AbortSignal.any([signal, limit.signal]);
  try {
    const url = new URL(message.url);
    const agent = await guardedAgent(url, {
      allowed: options.allowed,
      onlyAllowed: false,
      setting: 'NOTIFY_ALLOW_HOSTS',
      resolve,
      signal: either,
    });
    const headers = signedHeaders(message, secrets, now());
    const { statusCode = 0, headers: answered } = await post(
      url,
      { agent, headers, signal: either },
      message.body,
    );
    if (statusCode >= 200 && statusCode < 300) return { kind: 'delivered' };
    if (statusCode === 410) return { kind: 'refused', reason: 'the receiver answered 410 Gone' };
    const redirect = statusCode >= 300 && statusCode < 400 ? '; redirects are not followed' : '';
    return failed(
      `the receiver answered ${statusCode}${redirect}`,
      retryAfterMs(answered['retry-after'], now()),
    );
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof HostRefusedError) return { kind: 'refused', reason: error.message };
    return failed(limit.signal.aborted ? `no answer within ${timeoutMs} ms` : nameOf(error));
  } finally {
    clearTimeout(timer);
  }
}

function signedHeaders({ id, body }: Message, secrets: readonly string[], now: number) {
  const at = new Date(now);
  return {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'user-agent': 'reelhaul',
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(now / 1000)),
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
  };
}

/** Resolves with the head of the answer; the rest is thrown away. */
function post(url: URL, options: RequestOptions, body: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(url, { ...options, method: 'POST' }, (answer) => {
      answer.on('error', () => {});
      answer.destroy();
      resolve(answer);
    });
    request.on('error', reject);
    request.end(body);
  });
}

const failed = (reason: string, wanted: number | null = null): Sent => ({
  kind: 'failed',
  reason,
  retryAfterMs: wanted,
});

/** `Retry-After`: seconds, or a date. */
function retryAfterMs(header: string | undefined, now: number): number | null {
  if (header === undefined) return null;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, at - now);
}

function nameOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === 'string' ? code : typeof message === 'string' ? message : 'unknown error';
}
