/**
 * One HTTP request whose socket is watched from the start, to know what an error code cannot tell: whether anything
 * of the request can have left. Handed to axios as its transport.
 */
import http from 'node:http';
import https from 'node:https';

/** What is told of a request, at most once each and in this order but for `flushed`, which may precede `connected`. */
export interface Watcher {
  /** The request was made and nothing sent. Throw here to stop it. */
  begun(request: http.ClientRequest): void;
  /** The connection is up (with TLS: shaken hands and trusted); from this instant bytes leave. */
  connected(): void;
  /** The last byte of the request was handed to the operating system. */
  flushed(): void;
  /** The connection ended and there was no answer; Node says no more than this of an upgrade nobody asked for. */
  closed(): void;
}

export interface Transport {
  request(
    options: https.RequestOptions,
    onResponse: (response: http.IncomingMessage) => void,
  ): http.ClientRequest;
}

export function watchedTransport(watcher: Watcher): Transport {
  return {
    request(options, onResponse) {
      const secure = options.protocol === 'https:';
      let answered = false;
      const request = (secure ? https : http).request(options, (response) => {
        answered = true;
        onResponse(response);
      });
      request.once('socket', (socket) => {
        if (request.reusedSocket || !socket.connecting) watcher.connected();
        // Node hands bytes on only after this event, and a certificate that is not trusted never gets to it.
        else socket.once(secure ? 'secureConnect' : 'connect', () => watcher.connected());
      });
      request.once('finish', () => watcher.flushed());
      // An error says more and is emitted in the same turn; it goes first.
      request.once('close', () => {
        if (!answered) setImmediate(() => watcher.closed());
      });
      watcher.begun(request);
      return request;
    },
  };
}
