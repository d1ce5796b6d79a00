/** The server that is fuzzed, in a process of its own: what its event loop and its memory do is asked over IPC. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { startServer } from '../../src/http/server.js';
import { createHub } from '../../src/pipeline/context.js';
import { connectRedis } from '../../src/redis/connect.js';

export interface Figures {
  readonly delayMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly rssMb: number;
  readonly heapMb: number;
  /** Errors that nobody foresaw, as the log has them. */
  readonly unforeseen: readonly string[];
}

const unforeseen: string[] = [];
const log = pino(
  { level: 'error' },
  { write: (line: string) => void (unforeseen.length < 20 && unforeseen.push(line.slice(0, 2000))) },
);
const config = readConfig(process.env);
const redis = await connectRedis(config, 'producer', log);
const hub = createHub({ config, log, redis });
const server = await startServer(hub);
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();

process.on('message', () => {
  const { rss, heapUsed } = process.memoryUsage();
  const ms = (ns: number) => Math.round(ns / 1e5) / 10;
  const figures: Figures = {
    delayMs: { p50: ms(delay.percentile(50)), p99: ms(delay.percentile(99)), max: ms(delay.max) },
    rssMb: Math.round(rss / 2 ** 20),
    heapMb: Math.round(heapUsed / 2 ** 20),
    unforeseen,
  };
  delay.reset();
  process.send?.(figures);
});
process.on('disconnect', () => process.exit(0));
process.send?.({ port: server.port });
