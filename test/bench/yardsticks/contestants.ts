/** The yardsticks as contestants: how each is started, fed and counted. */
import { fileURLToPath } from 'node:url';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import PgBoss from 'pg-boss';
import type { Contestant, Settings } from '../contestant.js';
import type { Program } from '../processes.js';
import { countRedis } from '../redis-meter.js';
import type { Rig } from '../rig.js';
import { JOB_OPTIONS, QUEUES } from './plain-queues.js';
import { findPostgres, launchPostgres } from './postgres.js';
import type { YardstickOptions } from './program.js';

const fileOf = (name: string) => fileURLToPath(new URL(`${name}.js`, import.meta.url));
/** So many jobs are added in one call. */
const BATCH = 500;

/** Starts its worker programs and adds up what they say is over. */
function fleet(rig: Rig, settings: Settings, file: string, storeUrl: string) {
  const options: YardstickOptions = {
    ...settings,
    storeUrl,
    baseUrl: rig.simulator.url,
    folder: rig.archive,
  };
  const workers: Program[] = [];
  const counts = new Map<Program, number>();
  const work = (count: number) => {
    for (let i = 0; i < count; i++) {
      const worker = rig.program(fileOf(file), [JSON.stringify(options)], {});
      worker.child.on('message', ({ over }: { over: number }) => counts.set(worker, over));
      workers.push(worker);
    }
  };
  work(settings.workers);
  return {
    workers,
    work,
    over: () => Promise.resolve([...counts.values()].reduce((sum, n) => sum + n, 0)),
    stop: () => Promise.all(workers.map((worker) => worker.stop())),
  };
}

async function inBatches<T>(
  items: readonly T[],
  add: (batch: readonly T[]) => Promise<unknown>,
): Promise<void> {
  for (let i = 0; i < items.length; i += BATCH) await add(items.slice(i, i + BATCH));
}

export const plainBullmq: Contestant = {
  name: 'plain BullMQ',
  async start(rig, settings) {
    const { stop, ...running } = fleet(rig, settings, 'plain-bullmq', rig.redis.url);
    const connection = new Redis(rig.redis.url, { maxRetriesPerRequest: null });
    const queue = new Queue(QUEUES.submit, { connection, defaultJobOptions: JOB_OPTIONS });
    return {
      ...running,
      enqueue: (prompts) =>
        inBatches(prompts, (batch) =>
          queue.addBulk(batch.map((prompt) => ({ name: 'submit', data: { prompt } }))),
        ),
      storeCpuSeconds: async () => (await countRedis(rig.client)).cpuSeconds,
      async close() {
        await stop();
        await queue.close();
        await connection.quit();
      },
    };
  },
};

/** Null where PostgreSQL is not installed. */
export async function findPgBoss(): Promise<Contestant | null> {
  if ((await findPostgres()) === null) return null;
  return {
    name: 'pg-boss',
    async start(rig, settings) {
      const postgres = await launchPostgres();
      const boss = new PgBoss(postgres.url);
      await boss.start();
      for (const queue of ['submit', 'poll', 'download']) await boss.createQueue(queue);
      const { stop, ...running } = fleet(rig, settings, 'pg-boss', postgres.url);
      return {
        ...running,
        enqueue: (prompts) =>
          inBatches(prompts, (batch) =>
            boss.insert(batch.map((prompt) => ({ name: 'submit', data: { prompt } }))),
          ),
        storeCpuSeconds: () => postgres.cpuSeconds(),
        async close() {
          await stop();
          await boss.stop({ graceful: false });
          await postgres.stop();
        },
      };
    },
  };
}

export const floorUndici: Contestant = {
  name: 'no queue, undici',
  start(rig, settings) {
    const { stop, ...running } = fleet(rig, { ...settings, workers: 1 }, 'floor', '');
    return Promise.resolve({
      ...running,
      enqueue(prompts) {
        running.workers[0]?.child.send([...prompts]);
        return Promise.resolve();
      },
      storeCpuSeconds: null,
      close: async () => void (await stop()),
    });
  },
};
