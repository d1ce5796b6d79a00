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
      const request = (secure ? https : http).request(options, onResponse);
      request.once('socket', (socket) => {
        if (request.reusedSocket || !socket.connecting) watcher.connected();
        // Node hands bytes on only after this event, and a certificate that is not trusted never gets to it.
        else socket.once(secure ? 'secureConnect' : 'connect', () => watcher.connected());
      });
      request.once('finish', () => watcher.flushed());
      watcher.begun(request);
      return request;
    },
  };
}
