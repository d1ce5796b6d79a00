/**
 * An answer of the provider as data, and the one function that puts it on the wire: whole, cut, dripping, endless, or
 * not at all.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Timers } from './timers.js';

export interface Answer {
  /** How it leaves. `truncated`: half the body under the full Content-Length, then the connection is cut. */
  readonly manner: 'whole' | 'truncated' | 'drip' | 'endless' | 'reset' | 'hang';
  readonly status: number;
  readonly headers: OutgoingHttpHeaders;
  readonly body: string;
  /** For `drip`: how long the body takes to arrive, in ms. */
  readonly overMs: number;
}

const EMPTY: Answer = { manner: 'whole', status: 200, headers: {}, body: '', overMs: 0 };

export function json(status: number, body: unknown, headers: OutgoingHttpHeaders = {}): Answer {
  return {
    ...EMPTY,
    status,
    headers: { 'Content-Type': 'application/json; charset=utf-8', ...headers },
    body: JSON.stringify(body),
  };
}

/** The page that a gateway or proxy in front of the provider shows. */
export function html(status: number): Answer {
  return {
    ...EMPTY,
    status,
    headers: { 'Content-Type': 'text/html; charset=utf-8', Server: 'cloudflare' },
    body: `<!DOCTYPE html><html><head><title>${status}</title></head><body><h1>${status}</h1><p>simulated gateway page</p></body></html>`,
  };
}

export function text(status: number, body: string, headers: OutgoingHttpHeaders = {}): Answer {
  return { ...EMPTY, status, headers: { 'Content-Type': 'text/plain; charset=utf-8', ...headers }, body };
}

export function redirect(location: string, status = 302): Answer {
  return { ...EMPTY, status, headers: { Location: location } };
}

/** A protocol switch that no client asked for. */
export const SWITCHING: Answer = {
  ...EMPTY,
  status: 101,
  headers: { Connection: 'Upgrade', Upgrade: 'websocket' },
};
/** The connection is reset without an answer. */
export const RESET: Answer = { ...EMPTY, manner: 'reset' };
/** The connection stays open and silent. */
export const HANG: Answer = { ...EMPTY, manner: 'hang' };

/**
 * The gateway's error envelope, `{error:{message, type:"comet_api_error", …}}`. `retryAfter` is the ready header value.
 */
export function gatewayError(
  status: number,
  code: string,
  message: string,
  retryAfter: string | null = null,
): Answer {
  return json(
    status,
    { error: { message: `${message} (request id: simulated)`, type: 'comet_api_error', param: '', code } },
    retryAfter === null ? {} : { 'Retry-After': retryAfter },
  );
}

/** A key that is missing or wrong. */
export const UNAUTHORIZED: Answer = gatewayError(401, '', 'Invalid token');

/** The value of a `Retry-After` header: whole seconds (rounded up), or an HTTP date. */
export function retryAfterHeader(
  wish: { readonly form: 'seconds' | 'date'; readonly delayMs: number } | null,
  nowMs: number,
): string | null {
  if (wish === null) return null;
  if (wish.form === 'seconds') return String(Math.ceil(wish.delayMs / 1000));
  return new Date(nowMs + wish.delayMs).toUTCString();
}

const MAX_BODY_BYTES = 1024 * 1024;
const DRIP_STEPS = 40;
const FOREVER_PIECE = Buffer.alloc(16 * 1024, 0x20);

/** Settles when the answer is finished or its connection is gone. */
export function closed(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.closed || response.destroyed) resolve();
    else response.once('close', resolve);
  });
}

function isGone(response: ServerResponse): boolean {
  return response.destroyed || (response.socket?.destroyed ?? true);
}

/** Writes one piece and waits until there is room for the next. False when the connection is gone. */
export async function writePiece(response: ServerResponse, piece: Buffer | string): Promise<boolean> {
  if (isGone(response)) return false;
  if (!response.write(piece)) {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        response.off('drain', done);
        response.off('close', done);
        resolve();
      };
      response.on('drain', done);
      response.on('close', done);
    });
  }
  return !isGone(response);
}

/** Lets what was written leave, then cuts the connection without ending the answer. */
export async function cut(response: ServerResponse): Promise<void> {
  const { socket } = response;
  if (socket === null) return;
  // Where no byte of the body was written, the headers still wait for one.
  response.flushHeaders();
  await new Promise<void>((resolve) => {
    if (socket.destroyed) {
      resolve();
      return;
    }
    socket.once('close', () => resolve());
    // The empty write comes back after everything before it went to the kernel.
    socket.write('', () => socket.destroy());
  });
}

/** Puts the answer on the wire. Never throws, also when the client has gone. */
export async function send(response: ServerResponse, answer: Answer, timers: Timers): Promise<void> {
  const body = Buffer.from(answer.body);
  switch (answer.manner) {
    case 'reset':
      response.socket?.resetAndDestroy();
      return;
    case 'hang':
      return closed(response);
    case 'whole':
      response.writeHead(answer.status, {
        ...answer.headers,
        ...(answer.status === 204 || answer.status === 101 ? {} : { 'Content-Length': body.length }),
      });
      response.end(body);
      return closed(response);
    case 'truncated':
      response.writeHead(answer.status, { ...answer.headers, 'Content-Length': body.length });
      await writePiece(response, body.subarray(0, Math.floor(body.length / 2)));
      return cut(response);
    case 'drip': {
      response.writeHead(answer.status, { ...answer.headers, 'Content-Length': body.length });
      const pieceBytes = Math.max(1, Math.ceil(body.length / DRIP_STEPS));
      for (let at = 0; at < body.length; at += pieceBytes) {
        if (!(await writePiece(response, body.subarray(at, at + pieceBytes)))) return;
        await timers.sleep(answer.overMs / Math.ceil(body.length / pieceBytes));
      }
      response.end();
      return closed(response);
    }
    case 'endless': {
      // White space before the body keeps even a streaming JSON parser waiting.
      response.writeHead(answer.status, answer.headers);
      while (await writePiece(response, FOREVER_PIECE)) await timers.sleep(1);
      return;
    }
  }
}

/** The value of a body; undefined when it is no JSON. */
export function parseJson(body: string | null): unknown {
  if (body === null) return undefined;
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** The body of a request as text; null when it is larger than `maxBytes`. Throws when the client goes away. */
export async function readBody(request: IncomingMessage, maxBytes = MAX_BODY_BYTES): Promise<string | null> {
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    sizeBytes += piece.length;
    if (sizeBytes > maxBytes) return null;
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}
