/**
 * The calls to the provider, over HTTP. It promises:
 *
 * - `submit` and `poll` never throw and never wait without limit; every answer becomes one of the outcomes;
 * - a submit that ends before its connection was up is told apart from one that may have been read, by watching the
 *   socket, never by guessing from an error code: the same ECONNRESET is free before and may be billed after;
 * - no redirect is followed, no proxy variable is honoured, and the API key goes to `baseUrl` and nowhere else.
 */
import http from 'node:http';
import https from 'node:https';
import type { Readable } from 'node:stream';
import { create } from 'axios';
import type { InputField } from '../generation/inputs.js';
import { secondsOf, type WrittenRequest } from '../generation/request.js';
import type { Exchange, FailureReason } from './answer.js';
import { classifyPoll } from './classify-poll.js';
import { classifySubmit, type Submit5xxPolicy } from './classify-submit.js';
import type { PollOutcome, SubmitOutcome } from './outcomes.js';
import { transport, type Watcher } from '../outbound/http.js';
import { LONGEST_TIMER_MS } from '../outbound/limit.js';

export interface ProviderOptions {
  /** Scheme, host and port of the API, such as `https://api.cometapi.com`. */
  readonly baseUrl: string;
  readonly apiKey: string;
  /** `X-Runway-Version`. */
  readonly version: string;
  /** The longest a whole call may take, from the first look-up to the last byte of the answer. */
  readonly submitTimeoutMs: number;
  readonly pollTimeoutMs: number;
  /** The longest that look-up, connection and TLS handshake may take; never more than the whole. Default 10 s. */
  readonly connectTimeoutMs?: number;
  readonly submit5xxPolicy: Submit5xxPolicy;
  /** Codes of a 503 that says: nothing was accepted. Default: none. */
  readonly submitNotAcceptedCodes?: readonly string[];
  /** Epoch ms. */
  readonly now: () => number;
  /** PEM of one more certificate authority, for a gateway of one's own. */
  readonly ca?: string;
  readonly log?: { debug(fields: Readonly<Record<string, unknown>>, message: string): void };
}

/** A request whose inputs may be in any form: only URLs are sent. */
export type SubmittedRequest = Omit<WrittenRequest, InputField> & {
  readonly [field in InputField]?: unknown;
};

export interface SubmitOptions {
  readonly callbackUrl: string;
  /** Where the provider fetches the inputs that are no URLs. */
  readonly inputLinks?: { readonly [field in InputField]?: string };
  readonly signal?: AbortSignal;
  /** Called once, when the whole request has been handed to a connected socket: from here on it may be billed. */
  readonly onSent?: () => void;
}

export interface Provider {
  submit(request: SubmittedRequest, options: SubmitOptions): Promise<SubmitOutcome>;
  poll(taskId: string, options?: { readonly signal?: AbortSignal }): Promise<PollOutcome>;
  /** Closes the connections of polls. A submit under way is left alone: cutting it would make it unconfirmed. */
  close(): void;
}

/** An answer is some hundred bytes; counted after decompression, so that a small bomb is no bigger than this. */
const MAX_BODY_BYTES = 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;

interface Call {
  readonly url: string;
  readonly body: () => object;
  readonly timeoutMs: number;
  readonly agent: http.Agent;
  readonly signal: AbortSignal | undefined;
  readonly onSent: (() => void) | undefined;
}

export function createProvider(options: ProviderOptions): Provider {
  const { apiKey, now, log } = options;
  const origin = options.baseUrl.replace(/\/+$/, '');
  const tls = options.ca === undefined ? {} : { ca: options.ca };
  // A server may drop an idle connection at the very moment it is used again. Such a reset looks exactly like one
  // after the request was read, and would make a paid submit unconfirmed for nothing: it gets a fresh connection.
  const open = (keepAlive: boolean): http.Agent =>
    /^https:/i.test(origin) ? new https.Agent({ keepAlive, ...tls }) : new http.Agent({ keepAlive });
  const submitAgent = open(false);
  const pollAgent = open(true);
  // An instance of its own: interceptors that an app puts on the global one must not touch a paid request.
  const caller = create();

  /** One call, from nothing to a whole or broken answer. Never rejects. */
  function exchange(call: Call): Promise<Exchange> {
    return new Promise((settle) => {
      let request: http.ClientRequest | undefined;
      let over = false;
      let sent = false;
      let flushed = false;
      let httpStatus: number | null = null;
      let headers: Record<string, string> = {};
      const chunks: Buffer[] = [];
      let sizeBytes = 0;

      const finish = (failure: Exchange['failure']) => {
        if (over) return;
        over = true;
        clearTimeout(connectTimer);
        clearTimeout(totalTimer);
        call.signal?.removeEventListener('abort', onAbort);
        // Destroyed at once: a connection that is not up at this line never comes up, so `sent` stays correct.
        if (failure) request?.destroy();
        settle({ httpStatus, headers, body: Buffer.concat(chunks).toString('utf8'), failure, sent });
      };
      const fail = (reason: FailureReason, message: string) => finish({ reason, message });

      const totalMs = Math.min(call.timeoutMs, LONGEST_TIMER_MS);
      const connectMs = Math.min(options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS, totalMs);
      // A process that stood still (stopped, starved, asleep) finds its timers due before it has read what arrived
      // meanwhile. Each timer reads the sockets first, so that an answer that has arrived already is not dropped.
      const connectTimer = setTimeout(() => {
        setImmediate(() => {
          if (!sent) fail('connect', `No connection within ${connectMs} ms.`);
        });
      }, connectMs);
      const totalTimer = setTimeout(() => {
        setImmediate(() => fail('timeout', `No whole answer within ${totalMs} ms.`));
      }, totalMs);
      const onAbort = () => {
        fail('aborted', sent ? 'Aborted after the request was sent.' : 'Aborted before anything was sent.');
      };

      const tellSent = () => {
        if (!sent || !flushed || over) return;
        try {
          call.onSent?.();
        } catch (error) {
          note({ error: explain(error) }, 'onSent threw');
        }
      };
      const watcher: Watcher = {
        begun(made) {
          request = made;
          // Today axios makes the request in the turn it is asked; should it ever wait, an abort may come first.
          if (over) made.destroy();
        },
        connected() {
          sent = true;
          clearTimeout(connectTimer);
          tellSent();
        },
        flushed() {
          flushed = true;
          tellSent();
        },
        closed() {
          fail(sent ? 'connectionLost' : 'connect', 'The connection closed without an answer.');
        },
      };

      const read = (body: Readable) => {
        body.on('data', (chunk: Buffer) => {
          chunks.push(chunk.subarray(0, MAX_BODY_BYTES - sizeBytes));
          sizeBytes += chunk.length;
          if (sizeBytes <= MAX_BODY_BYTES) return;
          fail('tooLarge', `The answer is bigger than ${MAX_BODY_BYTES} bytes.`);
          body.destroy();
        });
        body.once('end', () => finish(null));
        body.once('error', (error) => fail('connectionLost', explain(error)));
        // An error says more; it goes first.
        const broken = 'The connection closed in the middle of the answer.';
        body.once('close', () => fail('connectionLost', broken));
        // It may have broken in the very turn in which it came.
        if (body.destroyed) fail('connectionLost', body.errored ? explain(body.errored) : broken);
      };

      const run = async () => {
        if (call.signal?.aborted) return onAbort();
        call.signal?.addEventListener('abort', onAbort, { once: true });
        const response = await caller.request<Readable>({
          adapter: transport({ agent: call.agent, watcher, decompress: true }),
          method: 'POST',
          url: call.url,
          headers: {
            Authorization: `Bearer ${apiKey}`,
            'Content-Type': 'application/json',
            'X-Runway-Version': options.version,
            Accept: 'application/json',
            'Accept-Encoding': 'identity',
            'User-Agent': 'reelhaul',
          },
          data: Buffer.from(JSON.stringify(call.body()), 'utf8'),
          transformRequest: [(data: unknown) => data],
          // The stream as it is: time and size are kept here, since the half of an answer counts.
          transformResponse: [(body: unknown) => body],
          validateStatus: () => true,
        });
        httpStatus = response.status;
        headers = readHeaders(response.headers);
        read(response.data);
      };
      run().catch((error: unknown) => {
        fail(sent ? 'connectionLost' : 'connect', explain(error));
      });
    });
  }

  /** A log that cannot be written must not cost an outcome. */
  function note(fields: Readonly<Record<string, unknown>>, message: string): void {
    try {
      log?.debug(fields, message);
    } catch {
      // Nothing depends on this line.
    }
  }

  /** Reads the answer; should that ever throw, the outcome is that of a call without an answer. */
  function judge<Outcome extends SubmitOutcome | PollOutcome>(
    answered: Exchange,
    classify: (exchange: Exchange, at: number) => Outcome,
  ): Outcome {
    let outcome: Outcome;
    try {
      outcome = classify(answered, now());
    } catch (error) {
      const failure = { reason: 'internal', message: explain(error) } as const;
      const unread = { httpStatus: null, headers: {}, body: '', failure, sent: answered.sent };
      outcome = classify(unread, now());
    }
    const { call, httpStatus, requestId, error } = outcome.answer;
    note({ call, outcome: outcome.kind, httpStatus, requestId, error }, 'provider answered');
    return outcome;
  }

  return {
    async submit(request, { callbackUrl, inputLinks = {}, signal, onSent }) {
      const { submit5xxPolicy, submitNotAcceptedCodes: notAcceptedCodes = [] } = options;
      const answered = await exchange({
        url: `${origin}/runway/pro/generate`,
        body: () => wireRequest(request, { callbackUrl, inputLinks }),
        timeoutMs: options.submitTimeoutMs,
        agent: submitAgent,
        signal,
        onSent,
      });
      return judge(answered, (exchange, at) =>
        classifySubmit(exchange, { at, apiKey, submit5xxPolicy, notAcceptedCodes }),
      );
    },

    async poll(taskId, { signal } = {}) {
      const answered = await exchange({
        url: `${origin}/runway/feed`,
        body: () => ({ task_id: taskId }),
        timeoutMs: options.pollTimeoutMs,
        agent: pollAgent,
        signal,
        onSent: undefined,
      });
      return judge(answered, (exchange, at) => classifyPoll(exchange, { at, apiKey, taskId }));
    },

    close() {
      pollAgent.destroy();
    },
  };
}

/** The documented fields, and the address of our callback. The length is always said. What is undefined is left out. */
function wireRequest(
  request: SubmittedRequest,
  { callbackUrl, inputLinks }: Pick<SubmitOptions, 'callbackUrl' | 'inputLinks'>,
): object {
  const { prompt, model, ratio, style } = request;
  const { image, last_image } = { image: request.image, last_image: request.last_image, ...inputLinks };
  const options = { ...request.options, seconds: secondsOf(request) };
  return { callback_url: callbackUrl, prompt, model, image, ratio, style, options, last_image };
}

/** Header names in lower case, repeated ones joined. */
function readHeaders(headers: object): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name.toLowerCase(),
      Array.isArray(value) ? value.join(', ') : String(value),
    ]),
  );
}

/** Code and message of whatever was thrown. The first of several attempts at a connection stands for all. */
function explain(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return explain(error.errors[0]);
  if (!(error instanceof Error)) return String(error);
  const { code, cause } = error as NodeJS.ErrnoException;
  const message = error.message || (cause instanceof Error ? cause.message : '') || error.name;
  return typeof code === 'string' && !message.includes(code) ? `${code}: ${message}` : message;
}
