/**
 * What platforms and monitoring ask of a process: `/healthz` (would a restart help?), `/readyz` (does it do its work
 * now?) and `/metrics`. On the server's port beside the API, or alone on a worker's own port.
 *
 * Health needs no token and says nothing that is secret. Metrics show the volume of work: beside the API they need a
 * token of all tenants; `WORKER_PORT`, which belongs into a private network, answers without one.
 */
import { serve, type ServerType } from '@hono/node-server';
import type { AddressInfo } from 'node:net';
import { Hono, type MiddlewareHandler } from 'hono';
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import type { Hub } from '../pipeline/context.js';
import { createFleet, type Fleet } from '../telemetry/snapshot.js';
import { createHealth, type Health } from '../telemetry/health.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Vitals } from '../generation/work.js';
import { requireAccess, type ApiEnv } from './access.js';
import { HttpError } from './problems.js';

export interface Ops {
  readonly metrics: Metrics;
  readonly fleet: Fleet;
  /** Of everything this process runs. */
  readonly health: Health;
}

/**
 * The operator's view of this process, over the hub whose Redis it asks.
 * @param vitals of its runners: empty when it only serves, null while they are being started.
 */
export function createOps(hub: Hub, metrics: Metrics, vitals: () => readonly Vitals[] | null): Ops {
  const { redis, config, now } = hub;
  const fleet = createFleet(hub);
  const health = createHealth({
    redis,
    prefix: config.REDIS_PREFIX,
    fleet,
    vitals,
    sweepIntervalMs: config.SWEEP_INTERVAL_MS,
    now,
  });
  return { metrics, fleet, health };
}

export function createOpsRoutes({ metrics, fleet, health }: Ops): Hono {
  const routes = new Hono();
  const answer = (reasons: readonly string[]) =>
    reasons.length === 0
      ? Response.json({ ok: true })
      : Response.json({ ok: false, reasons }, { status: 503 });
  routes.get('/healthz', () => answer(health.alive()));
  routes.get('/readyz', async () => answer(await health.ready()));
  routes.get('/metrics', async (c) =>
    c.body(await metrics.text(fleet, health), 200, { 'content-type': metrics.contentType }),
  );
  return routes;
}

/** As the API, and not for the token of one tenant. */
export function requireOperator(config: Config): MiddlewareHandler<ApiEnv> {
  const access = requireAccess(config);
  return (c, next) =>
    access(c, async () => {
      if (c.get('caller').tenant !== null)
        throw new HttpError(403, 'forbidden', 'Metrics are of all tenants, and this token is of one.');
      await next();
    });
}

/** Rejects when the port is taken. */
export const listen = (options: Parameters<typeof serve>[0]): Promise<ServerType> =>
  new Promise((resolve, reject) => {
    const listening = serve(options, () => resolve(listening));
    listening.once('error', reject);
  });

/** Listens on `port` for health and metrics alone. Rejects when the port is taken. */
export async function startOpsServer(
  ops: Ops,
  port: number,
  log: Logger,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const server = await listen({ fetch: createOpsRoutes(ops).fetch, port });
  const listeningOn = (server.address() as AddressInfo).port;
  log.info({ port: listeningOn }, 'health and metrics are served');
  return {
    port: listeningOn,
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()));
        if ('closeAllConnections' in server) server.closeAllConnections();
      }),
  };
}
