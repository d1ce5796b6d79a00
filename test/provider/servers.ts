/** Small real servers on loopback that answer well or badly, and a provider that talks to them. */
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import type { AddressInfo } from 'node:net';
import { createProvider, type Provider, type ProviderOptions } from '../../src/provider/client.js';
import { API_KEY, AT } from './exchanges.js';
import { CERTIFICATE, KEY } from './tls.js';

export const REQUEST = { prompt: 'a boat', model: 'gen4', ratio: '1280:720' };
export const CALLBACK_URL = 'https://reelhaul.example/callbacks/runway/1/token';

/** What a test started and must stop, last first. */
const running: (() => Promise<void> | void)[] = [];

/** To be called after each test; nothing stays behind. */
export async function stopAll(): Promise<void> {
  for (const stop of running.splice(0).toReversed()) await stop();
}

export function onStop(stop: () => Promise<void> | void): void {
  running.push(stop);
}

async function listen(server: net.Server): Promise<number> {
  const sockets = new Set<net.Socket>();
  server.on('connection', (socket: net.Socket) => {
    sockets.add(socket);
    // A client that gives up resets the connection; that is no error of the server.
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onStop(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  );
  return (server.address() as AddressInfo).port;
}

/** An HTTP server; returns its base URL. */
export async function serveHttp(handler: http.RequestListener): Promise<string> {
  return `http://127.0.0.1:${await listen(http.createServer(handler))}`;
}

/** A server of bare sockets, for what no HTTP library would send. */
export async function serveSocket(onSocket: (socket: net.Socket) => void): Promise<string> {
  return `http://127.0.0.1:${await listen(net.createServer(onSocket))}`;
}

/** A bare TLS server; its certificate is trusted by nobody who is not told to. */
export async function serveTls(
  onSocket: (socket: tls.TLSSocket) => void,
  options: tls.TlsOptions = {},
): Promise<string> {
  const server = tls.createServer({ key: KEY, cert: CERTIFICATE, ...options }, (socket) => {
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.on('tlsClientError', () => undefined);
  return `https://localhost:${await listen(server)}`;
}

/** Sends `text` as the whole of an answer, once the request has been read to its end. */
export function afterRequest(socket: net.Socket, then: () => void): void {
  let read = '';
  socket.on('data', (chunk: Buffer) => {
    read += chunk.toString('latin1');
    if (read.endsWith('}')) then();
  });
}

/** A port of loopback on which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export function provider(baseUrl: string, options: Partial<ProviderOptions> = {}): Provider {
  const created = createProvider({
    baseUrl,
    apiKey: API_KEY,
    version: '2024-11-06',
    submitTimeoutMs: 5000,
    pollTimeoutMs: 5000,
    submit5xxPolicy: 'unconfirmed',
    now: () => AT,
    ...options,
  });
  onStop(() => created.close());
  return created;
}
