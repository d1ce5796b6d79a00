/** How many in flight one Redis carries at a poll a minute: polls that are answered at once, so that no HTTP bounds them. */
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { v7 as uuidv7 } from 'uuid';
import { quantile } from '../figures.js';
import { cpuSeconds, type Program } from '../processes.js';
import { countRedis } from '../redis-meter.js';
import { reelhaul } from '../reelhaul.js';
import type { Rig } from '../rig.js';
import { onRig, prompts, SETTINGS, until, type Figures, type Scenario } from '../scenario.js';
import { createQueues } from '../../../src/queue/queues.js';

const PREFIX = '{reelhaul}';
const BATCH = 2000;
const EVERY_MS = 60_000;
const WATCH_MS = 60_000;
const POLLERS = 2;
const pollerFile = fileURLToPath(new URL('../ceiling/poller.js', import.meta.url));

/** Copies of a generation that really is in flight, each with its poll job somewhere within the next minute. */
async function fill({ client }: Rig, count: number): Promise<void> {
  const [id = ''] = await client.zrange(`${PREFIX}:state:generating`, '0', '0');
  const dump = await client.dumpBuffer(`${PREFIX}:g:${id}`);
  const queues = createQueues(client, PREFIX, Date.now, () => {});
  const now = Date.now();
  for (let done = 0; done < count; done += BATCH) {
    const ids = Array.from({ length: Math.min(BATCH, count - done) }, (_, i) =>
      uuidv7({ msecs: now - 3_600_000 + done + i }),
    );
    const pipeline = client.pipeline();
    for (const copy of ids) {
      pipeline.restore(`${PREFIX}:g:${copy}`, 0, dump);
      for (const index of ['state:generating', 'tenant:default:generating', 'live'])
        pipeline.zadd(`${PREFIX}:${index}`, 0, copy);
    }
    await pipeline.exec();
    await queues.remindMany(
      'poll',
      ids.map((copy) => ({ generationId: copy, delayMs: EVERY_MS * (0.5 + Math.random()) })),
    );
  }
  await queues.close();
}

async function measure(rig: Rig, count: number): Promise<Figures> {
  await fill(rig, count);
  const environment = {
    ...rig.environment,
    POLL_MIN_INTERVAL_MS: String(EVERY_MS),
    POLL_MAX_INTERVAL_MS: String(EVERY_MS),
    GENERATION_DEADLINE_MS: '86400000',
    POLL_CONCURRENCY: String(SETTINGS.pollsAtOnce),
  };
  const told = new Map<Program, number>();
  const pollers = Array.from({ length: POLLERS }, () => {
    const poller = rig.program(pollerFile, [JSON.stringify(environment)], {});
    poller.child.on('message', ({ polls }: { polls: number }) => told.set(poller, polls));
    return poller;
  });
  const polls = () => [...told.values()].reduce((sum, n) => sum + n, 0);
  const cpu = async () =>
    (await Promise.all(pollers.map(({ pid }) => cpuSeconds(pid)))).reduce((sum, n) => sum + n, 0);
  // The first round: what is measured are jobs that the pollers put off themselves.
  await wait(1.5 * EVERY_MS);
  const before = { polls: polls(), cpu: await cpu(), redis: await countRedis(rig.client) };
  const queues = createQueues(rig.client, PREFIX, Date.now, () => {});
  const due: number[] = [];
  for (const endAt = Date.now() + WATCH_MS; Date.now() < endAt; await wait(500))
    due.push((await queues.backlog(Date.now())).poll.due);
  await queues.close();
  const after = { polls: polls(), cpu: await cpu(), redis: await countRedis(rig.client) };
  const seconds = WATCH_MS / 1000;
  const rate = (after.polls - before.polls) / seconds;
  return {
    'polls per s, wanted': (1000 * count) / EVERY_MS,
    'polls per s': rate,
    'late p50, s': quantile(due, 0.5) / rate,
    'late p95, s': quantile(due, 0.95) / rate,
    'Redis, cores': (after.redis.cpuSeconds - before.redis.cpuSeconds) / seconds,
    'pollers, cores': (after.cpu - before.cpu) / seconds,
    'commands per s': (after.redis.commands - before.redis.commands) / seconds,
    'Redis, MB': after.redis.dataBytes / 1e6,
  };
}

export function ceiling(scale: number): Scenario {
  const sizes = [50_000, 100_000, 150_000, 300_000].map((size) => Math.round(size * scale));
  return {
    name: 'ceiling',
    about: `So many in flight, each polled once a minute by ${POLLERS} processes whose provider answers at once.`,
    subjects: sizes.map((size) => ({
      name: size.toLocaleString('en'),
      measure: () =>
        onRig(reelhaul, SETTINGS, async (rig, contest) => {
          await contest.enqueue(prompts('long', 1, () => 'duration=1h'));
          await until('one to be in flight', async () => {
            return (await rig.client.zcard(`${PREFIX}:state:generating`)) === 1;
          });
          await Promise.all(contest.workers.map((worker) => worker.stop()));
          return measure(rig, size);
        }),
    })),
  };
}
