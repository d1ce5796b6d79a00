/** A worker of the poll stage alone, whose provider answers at once: what it costs is the queue and Redis. */
import { pino } from 'pino';
import { readConfig } from '../../../src/config/config.js';
import { createHub } from '../../../src/pipeline/context.js';
import type { PollOutcome } from '../../../src/provider/outcomes.js';
import { startRunner } from '../../../src/queue/runner.js';
import { connectRedis } from '../../../src/redis/connect.js';
import { createContext } from '../../../workers/context.js';
import { poll } from '../../../workers/poll.js';

const config = readConfig(JSON.parse(process.argv[2] ?? '{}') as Record<string, string>);
const log = pino({ level: 'warn' });
const redis = await connectRedis(config, 'worker', log);
const hub = createHub({ config, log, redis });
let polls = 0;
function running(): PollOutcome {
  polls += 1;
  return {
    kind: 'pending',
    running: true,
    progress: null,
    word: 'RUNNING',
    queued: false,
    timing: { startedAfterMs: null, endedAfterMs: null },
    answer: { at: Date.now(), call: 'poll', httpStatus: 200, requestId: null, body: '{}', error: null },
  };
}
const opened = await createContext(hub);
const context = { ...opened, provider: { ...opened.provider, poll: () => Promise.resolve(running()) } };
const runner = startRunner({
  name: 'poll',
  run: (generationId, signal) => poll(context, generationId, signal),
  holdQueue: (durationMs) => hub.queues.hold('poll', durationMs),
  redis,
  prefix: config.REDIS_PREFIX,
  concurrency: config.POLL_CONCURRENCY,
  lockMs: config.JOB_LOCK_MS,
  abortOnLostLock: true,
  log,
  work: hub.work,
  runLimitMs: 60_000,
  now: hub.now,
  workerHold: { check: () => null, onChange: () => {} },
});
const telling = setInterval(() => process.send?.({ polls }), 200);
process.once('SIGTERM', () => {
  clearInterval(telling);
  void runner.close(Date.now() + 5000).then(() => process.exit(0));
});
