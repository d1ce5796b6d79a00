/**
 * Sends requests with Node's own HTTP client. axios is the client of the provider's API, and uses this as its adapter: its
 * own Node adapter costs three times the call itself, for redirects, proxies, progress and several streams per body. None
 * of these is wanted here: no redirect is followed, and no proxy variable is honoured. The caller sets the limits of time
 * and size, since it uses the part of an answer that arrived. Downloads, three for each submit, are sent without axios.
 *
 * A `Watcher` follows a request from its start, because an error code does not tell whether any byte of the request left.
 */
import http from 'node:http';
import https from 'node:https';
import { pipeline, type Readable } from 'node:stream';
import { createBrotliDecompress, createInflate, createUnzip } from 'node:zlib';
import type { AxiosAdapter } from 'axios';

/** What is told of a request, at most once each and in this order but for `flushed`, which may precede `connected`. */
export interface Watcher {
  /** The request was made and nothing sent. */
  begun(request: http.ClientRequest): void;
  /** The connection is up (with TLS: shaken hands and trusted); from this instant bytes leave. */
  connected(): void;
  /** The last byte of the request was handed to the operating system. */
  flushed(): void;
  /** The connection ended and there was no answer; Node reports an upgrade that was not asked for only this way. */
  closed(): void;
}

export interface TransportOptions {
  /** One for the scheme of the URL. */
  readonly agent: http.Agent;
  readonly watcher?: Watcher;
  /** Undo what `Content-Encoding` says was done. */
  readonly decompress?: boolean;
}

export interface WireRequest {
  readonly method: string;
  readonly url: string | URL;
  /** Path and query as they are to be sent. Default: those of `url`. */
  readonly target?: string;
  readonly headers: http.OutgoingHttpHeaders;
  readonly body?: Buffer;
  /** Destroys the request at any time, also while the body of the answer is read. */
  readonly signal?: AbortSignal;
}

export interface WireAnswer {
  readonly status: number;
  readonly statusText: string;
  /** Names in lower case. */
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Readable;
  readonly request: http.ClientRequest;
}

/**
 * One request. Resolves with the status line and the body as a stream, and rejects with Node's own error. Node emits no
 * error but only `close` when the server switches protocols (101) unasked: that rejects too.
 */
export function send(
  { method, url, target, headers, body, signal }: WireRequest,
  { agent, watcher, decompress = false }: TransportOptions,
): Promise<WireAnswer> {
  return new Promise((resolve, reject) => {
    const to = typeof url === 'string' ? new URL(url) : url;
    const secure = to.protocol === 'https:';
    let answered = false;
    const request = (secure ? https : http).request(
      to,
      {
        method,
        headers,
        agent,
        ...(target === undefined ? {} : { path: target }),
        ...(signal ? { signal } : {}),
      },
      (response) => {
        answered = true;
        resolve({
          status: response.statusCode ?? 0,
          statusText: response.statusMessage ?? '',
          headers: response.headers,
          body: decompress ? decompressed(response) : response,
          request,
        });
      },
    );
    request.on('error', reject);
    request.once('close', () => {
      if (!answered) reject(new Error('The connection closed without an answer.'));
    });
    if (watcher) watch(request, secure, watcher, () => answered);
    request.end(body);
  });
}

/** The same as an adapter of axios, whose answer has the body as a stream in `data`. */
export function transport(options: TransportOptions): AxiosAdapter {
  return async (config) => {
    const {
      body: data,
      headers,
      ...answer
    } = await send(
      {
        method: config.method?.toUpperCase() ?? 'GET',
        url: config.url ?? '',
        headers: config.headers.toJSON(),
        body: config.data,
        ...(config.signal ? { signal: config.signal as AbortSignal } : {}),
      },
      options,
    );
    return { ...answer, headers: headers as Record<string, string>, data, config };
  };
}

function watch(
  request: http.ClientRequest,
  secure: boolean,
  watcher: Watcher,
  isAnswered: () => boolean,
): void {
  request.once('socket', (socket) => {
    if (request.reusedSocket || !socket.connecting) watcher.connected();
    // Node hands bytes on only after this event, and a certificate that is not trusted never gets to it.
    else socket.once(secure ? 'secureConnect' : 'connect', () => watcher.connected());
  });
  request.once('finish', () => watcher.flushed());
  // An error says more and is emitted in the same turn; it goes first.
  request.once('close', () => {
    if (!isAnswered()) setImmediate(() => watcher.closed());
  });
  watcher.begun(request);
}

/** The body as it was meant. One that is not what its encoding says ends in an error. */
function decompressed(response: http.IncomingMessage): Readable {
  switch (response.headers['content-encoding']?.trim().toLowerCase()) {
    case 'gzip':
    case 'x-gzip':
      return pipeline(response, createUnzip(), () => {});
    case 'deflate':
      return pipeline(response, createInflate(), () => {});
    case 'br':
      return pipeline(response, createBrotliDecompress(), () => {});
    case undefined:
    default:
      return response;
  }
}

const MAX_RETRY_AFTER_MS = 60 * 60 * 1000;
const HTTP_DATE = /^(mon|tue|wed|thu|fri|sat|sun)[a-z]*,? .*\d/i;

/**
 * The wait that a `Retry-After` asks for, in ms: seconds or a date (against `at`), clamped to 0 … `maxMs` (1 h unless
 * told), since a server with a wrong clock must not park a generation for a year. Null when it makes no sense.
 */
export function parseRetryAfterMs(header: string, at: number, maxMs = MAX_RETRY_AFTER_MS): number | null {
  const text = header.trim();
  let waitMs = NaN;
  if (/^[+-]?\d+(\.\d+)?$/.test(text)) waitMs = Number(text) * 1000;
  // The oldest of the three HTTP date forms names no zone, and means GMT as the others do.
  else if (HTTP_DATE.test(text))
    waitMs = Date.parse(/gmt|utc|[+-]\d{4}$/i.test(text) ? text : `${text} GMT`) - at;
  return Number.isNaN(waitMs) ? null : Math.round(Math.min(Math.max(waitMs, 0), maxMs));
}
