/**
 * The way from axios to the wire: Node's own HTTP client and nothing in between. axios stays the client of every call;
 * its own Node adapter is left out because it costs three times the call itself (redirects, proxies, progress, several
 * streams per body), and none of that is wanted here: no redirect is followed, no proxy variable is honoured, and limits
 * of time and size are the caller's, which knows what half of an answer is worth.
 *
 * A request can be watched from the start, to know what an error code cannot tell: whether anything of it can have left.
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
  /** The connection ended and there was no answer; Node says no more than this of an upgrade nobody asked for. */
  closed(): void;
}

export interface TransportOptions {
  /** One for the scheme of the URL. */
  readonly agent: http.Agent;
  readonly watcher?: Watcher;
  /** Undo what `Content-Encoding` says was done. */
  readonly decompress?: boolean;
}

/**
 * An adapter for one request of axios. It resolves with the status line and a stream (`data`), and rejects with Node's
 * own error; the request's `signal` destroys it at any time, also while the body is read.
 */
export function transport({ agent, watcher, decompress = false }: TransportOptions): AxiosAdapter {
  return (config) =>
    new Promise((resolve, reject) => {
      const url = new URL(config.url ?? '');
      const secure = url.protocol === 'https:';
      let answered = false;
      const request = (secure ? https : http).request(
        url,
        {
          method: config.method?.toUpperCase() ?? 'GET',
          headers: config.headers.toJSON(),
          agent,
          ...(config.signal ? { signal: config.signal as AbortSignal } : {}),
        },
        (response) => {
          answered = true;
          resolve({
            status: response.statusCode ?? 0,
            statusText: response.statusMessage ?? '',
            headers: response.headers as Record<string, string>,
            data: decompress ? decompressed(response) : response,
            config,
            request,
          });
        },
      );
      request.on('error', reject);
      if (watcher) watch(request, secure, watcher, () => answered);
      request.end(config.data);
    });
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
