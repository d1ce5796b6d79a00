/**
 * The HTTP server: the API for apps, the provider's callbacks, the dashboard, health and metrics.
 *
 * Callbacks come from outside, so with `PUBLIC_URL` it listens on all addresses; so it does with `API_TOKENS` and
 * `DASHBOARD_USER`. With none of them it listens on this machine only. Whatever it listens on, without tokens the API
 * answers only this machine, and without `DASHBOARD_USER` so does the dashboard; with a `PUBLIC_URL` they answer nothing then.
 */
import type { ServerType } from '@hono/node-server';
import type { AddressInfo } from 'node:net';
import type { Hub } from '../pipeline/context.js';
import { duplicatePatiently } from '../redis/connect.js';
import { createReelhaulOn } from '../reelhaul.js';
import { startFigures } from '../telemetry/time-series.js';
import { createMetrics } from '../telemetry/metrics.js';
import { isPublic } from './access.js';
import { createApi } from './api.js';
import { createCallbackRoutes } from './callbacks.js';
import { createDashboard } from './dashboard/dashboard.js';
import { createOps, createOpsRoutes, listen, requireOperator, type Ops } from './health-routes.js';

export { createOps };

/** To send the whole request. */
const REQUEST_TIMEOUT_MS = 60_000;
/**
 * Balancers reuse an idle connection for up to 60 s. It has to be open for longer here: one that is closed while a request
 * is on its way resets that request, which a balancer repeats only if it changes nothing.
 */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
/** Node counts the idle time before the headers as well. */
const HEADERS_TIMEOUT_MS = 80_000;

/** What is still being answered when the server stops has so long to come to its end. */
const LAST_ANSWERS_MS = 5000;
const LET_GO_EVERY_MS = 50;

/** Open pages go on asking over the connections they have: each is closed as soon as it is idle, and at last in any case. */
async function letGo(server: ServerType, stopped: Promise<void>): Promise<void> {
  if (!('closeIdleConnections' in server)) return stopped;
  server.closeIdleConnections();
  const idle = setInterval(() => server.closeIdleConnections(), LET_GO_EVERY_MS);
  const atLast = setTimeout(() => server.closeAllConnections(), LAST_ANSWERS_MS);
  try {
    await stopped;
  } finally {
    clearInterval(idle);
    clearTimeout(atLast);
  }
}

export interface RunningServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Starts to listen on `PORT` (0: any free one). Rejects when the port is taken. */
export async function startServer(
  hub: Hub,
  ops: Ops = createOps(hub, createMetrics(), () => []),
): Promise<RunningServer> {
  const { config, log, redis } = hub;
  const openReader = async () => {
    const reader = duplicatePatiently(redis);
    reader.on('error', () => {});
    return reader;
  };
  const reelhaul = createReelhaulOn(hub, openReader, async () => {});
  const api = createApi(hub, reelhaul);
  const { app, openedStorage } = api;
  app.route('/', createCallbackRoutes(hub));
  app.use('/metrics', requireOperator(config));
  app.route('/', createOpsRoutes(ops));
  const figures = startFigures({
    redis,
    keys: hub.store.keys,
    moves: hub.moves,
    onError: (error) => log.warn({ err: error }, 'figures could not be written yet'),
  });
  app.route('/', createDashboard({ hub, reelhaul, fleet: ops.fleet, health: ops.health, openedStorage }));

  const open = config.API_TOKENS.length > 0;
  const reachable = open || config.DASHBOARD_USER !== '' || config.PUBLIC_URL !== '';
  const hostname = reachable ? {} : { hostname: '127.0.0.1' };
  const server = await listen({ fetch: app.fetch, port: config.PORT, ...hostname });
  if ('requestTimeout' in server) {
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.headersTimeout = HEADERS_TIMEOUT_MS;
    server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS;
  }
  const { port, address } = server.address() as AddressInfo;
  log.info(
    { port, address, callbacks: config.PUBLIC_URL || 'off (PUBLIC_URL is not set)', docs: '/docs' },
    'server started',
  );
  if (!open)
    log.warn(
      isPublic(config)
        ? 'API_TOKENS is not set, and PUBLIC_URL is: the API refuses everything but callbacks and signed links'
        : 'API_TOKENS is not set: the API answers only to this machine, asked as localhost',
    );
  return {
    port,
    async close() {
      const stopped = new Promise<void>((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()));
      });
      await api.close();
      await letGo(server, stopped);
      await figures.close();
    },
  };
}
