/** The HTTP server: the provider's callbacks, and a health check. It listens on all addresses, since callbacks come from outside. */
import { serve, type ServerType } from '@hono/node-server';
import { Hono } from 'hono';
import type { AddressInfo } from 'node:net';
import type { Hub } from '../hub.js';
import { createCallbackRoutes } from './callbacks.js';

const REQUEST_TIMEOUT_MS = 15_000;
const HEADERS_TIMEOUT_MS = 5000;

export interface RunningServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Starts to listen on `PORT` (0: any free one). Rejects when the port is taken. */
export async function startServer(hub: Hub): Promise<RunningServer> {
  const app = new Hono();
  app.route('/', createCallbackRoutes(hub));
  app.get('/healthz', (c) => c.json({ ok: true }));
  const server = await new Promise<ServerType>((resolve, reject) => {
    const listening = serve({ fetch: app.fetch, port: hub.config.PORT }, () => resolve(listening));
    listening.once('error', reject);
  });
  if ('requestTimeout' in server) {
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.headersTimeout = HEADERS_TIMEOUT_MS;
  }
  const { port } = server.address() as AddressInfo;
  hub.log.info({ port, callbacks: hub.config.PUBLIC_URL || 'off (PUBLIC_URL is not set)' }, 'server started');
  return {
    port,
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()));
        if ('closeIdleConnections' in server) server.closeIdleConnections();
      }),
  };
}
