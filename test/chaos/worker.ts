/**
 * A worker that kills itself, hard, at a named point of the submit path. Everything else about it is the real one.
 * CHAOS_POINTS names the points, CHAOS_PROBABILITY how likely it is each time one is passed.
 */
import { readConfig } from '../../src/config/config.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { startWorkers } from '../../workers/main.js';

const points = (process.env['CHAOS_POINTS'] ?? '').split(',').filter(Boolean);
const probability = Number(process.env['CHAOS_PROBABILITY'] ?? 0);

const config = readConfig(process.env);
// Redis may be down just now: whoever started this process starts another one.
const workers = await startWorkers({
  config,
  log: createLogger({ level: config.LOG_LEVEL, secrets: [config.COMETAPI_KEY] }),
  checkpoint: (point) => {
    if (points.includes(point) && Math.random() < probability) process.kill(process.pid, 'SIGKILL');
  },
}).catch(() => process.exit(1));
process.once('SIGTERM', () => void workers.close());
