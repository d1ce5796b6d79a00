/** The processes that run for long: workers, the server, or both in one. */
import { setFlagsFromString } from 'node:v8';
import type { Command } from 'commander';
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import { loadOptional } from '../errors.js';
import { STAGES, type Stage } from '../generation/states.js';
import type { Hub } from '../pipeline/context.js';
import { wantsTraces } from '../telemetry/active-trace.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Vitals } from '../generation/work.js';
import type { RunningWorkers } from '../../workers/main.js';
import { stageList } from './arguments.js';
import { askedToStop, listenOn, loggerFor, readSettings } from './session.js';

const SERVER_PACKAGES = [
  'hono',
  '@hono/node-server',
  '@bull-board/api',
  '@bull-board/hono',
  '@bull-board/ui',
];
const OPS_PACKAGES = ['hono', '@hono/node-server'];
const TRACE_PACKAGES = [
  '@opentelemetry/api',
  '@opentelemetry/exporter-trace-otlp-http',
  '@opentelemetry/resources',
  '@opentelemetry/sdk-trace-node',
];
const loadOps = () => loadOptional('WORKER_PORT', OPS_PACKAGES, () => import('../http/health-routes.js'));
const loadTracing = () =>
  loadOptional('Tracing (OTEL_…)', TRACE_PACKAGES, () => import('../telemetry/tracing.js'));

/**
 * How much the heap of a worker may grow between two full garbage collections: to four times what was alive after the
 * last. V8 counts the bytes of downloads that pass by as growth; with its own figure a worker collected in full for each
 * 8 MB, which was 40 % of its CPU on a day of 8 MB videos.
 */
const HEAP_GROWING_PERCENT = 300;

/** `worker`, `serve`. */
export function addProcesses(program: Command): void {
  program
    .command('worker')
    .description('run the stages until SIGTERM; any number of workers share the work')
    .option('--stages <names>', `some of ${STAGES.join(',')}; default all`, stageList)
    .option('--serve', 'also answer the HTTP API and the callbacks of the provider on PORT')
    .action(async ({ stages, serve }: { stages?: Stage[]; serve?: boolean }) => {
      setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);
      const config = await readSettings();
      const { startWorkers } = await import('../../workers/main.js');
      const { createMetrics } = await import('../telemetry/metrics.js');
      const ops = !serve && config.WORKER_PORT > 0 ? await loadOps() : null;
      const metrics = createMetrics();
      const log = await loggerFor(config, (alarm) => metrics.alarmed(alarm));
      const stopped = askedToStop();
      let workers: RunningWorkers | null = null;
      const vitals = () => workers?.vitals() ?? null;
      // Listening first: a port that is taken is found before any job is.
      const listeners = await openWatch(metrics);
      let server = serve
        ? await serveHttp(config, log, metrics, (hub) => listeners.watch(hub), vitals)
        : null;
      const watch = async (hub: Hub) => {
        listeners.watch(hub);
        if (ops) {
          const answers = ops.createOps(hub, metrics, vitals);
          server = await listenOn('WORKER_PORT', ops.startOpsServer(answers, config.WORKER_PORT, log));
        }
      };
      try {
        workers = await startWorkers({ config, log, watch, ...(stages ? { stages } : {}) });
        log.info({ signal: await stopped }, 'stopping');
        await workers.close();
      } finally {
        await server?.close();
        await listeners.close();
      }
    });

  program
    .command('serve')
    .description('answer the HTTP API and the callbacks of the provider on PORT until SIGTERM')
    .action(async () => {
      const config = await readSettings();
      const { createMetrics } = await import('../telemetry/metrics.js');
      const metrics = createMetrics();
      const log = await loggerFor(config, (alarm) => metrics.alarmed(alarm));
      const stopped = askedToStop();
      const listeners = await openWatch(metrics);
      const server = await serveHttp(
        config,
        log,
        metrics,
        (hub) => listeners.watch(hub),
        () => [],
      );
      log.info({ signal: await stopped }, 'stopping');
      await server.close();
      await listeners.close();
    });
}

/** The listeners of this process: metrics, and traces where they are wanted. */
async function openWatch(metrics: Metrics): Promise<{ watch(hub: Hub): void; close(): Promise<void> }> {
  const tracing = wantsTraces(process.env) ? (await loadTracing()).createTracing(process.env) : null;
  return {
    watch(hub) {
      metrics.watch(hub);
      tracing?.watch(hub);
    },
    close: async () => tracing?.close(),
  };
}

async function serveHttp(
  config: Config,
  log: Logger,
  metrics: Metrics,
  watch: (hub: Hub) => void,
  vitals: () => readonly Vitals[] | null,
): Promise<{ close(): Promise<void> }> {
  const { createOps, startServer } = await loadOptional(
    'The HTTP server',
    SERVER_PACKAGES,
    () => import('../http/server.js'),
  );
  const { clockOf, createHub } = await import('../pipeline/context.js');
  const { openClock } = await import('../redis/clock.js');
  const { checkLayout } = await import('../redis/layout.js');
  const { connectRedis } = await import('../redis/connect.js');
  const { checkRedis } = await import('../redis/check.js');
  const redis = await connectRedis(config, 'producer', log);
  try {
    await checkRedis(redis);
    await checkLayout(redis, config.REDIS_PREFIX);
    const clock = await openClock(redis, config.REDIS_PREFIX);
    const hub = createHub({ config, log, redis, clock: clockOf(clock) });
    watch(hub);
    const server = await listenOn('PORT', startServer(hub, createOps(hub, metrics, vitals)));
    return {
      async close() {
        await server.close();
        clock.close();
        await hub.durations.close();
        await hub.queues.close();
        redis.disconnect();
      },
    };
  } catch (error) {
    redis.disconnect();
    throw error;
  }
}
