/** reelhaul itself: its library as the producer, `reelhaul worker` as the processes. */
import { readConfig } from '../../src/config/config.js';
import { createReelhaul } from '../../src/reelhaul.js';
import type { Contestant } from './contestant.js';
import type { Program } from './processes.js';
import { IMAGE } from './rig.js';
import { countRedis } from './redis-meter.js';

const PREFIX = '{reelhaul}';
const ENDS = ['succeeded', 'failed', 'expired', 'canceled'];

/** @param extra variables of the environment beside those that the settings of the scenario ask for. */
export function reelhaulWith(name: string, extra: Readonly<Record<string, string>> = {}): Contestant {
  return {
    name,
    async start(rig, settings) {
      const variables = {
        SUBMIT_CONCURRENCY: String(settings.submitsAtOnce),
        POLL_CONCURRENCY: String(settings.pollsAtOnce),
        ARCHIVE_CONCURRENCY: String(settings.downloadsAtOnce),
        POLL_FIRST_DELAY_MS: String(settings.firstPollMs),
        ...extra,
      };
      const config = readConfig({ ...rig.environment, ...variables });
      const producer = await createReelhaul({ config });
      const workers: Program[] = [];
      const work = (count: number) => {
        for (let i = 0; i < count; i++) workers.push(rig.reelhaul(['worker'], variables));
      };
      work(settings.workers);
      return {
        workers,
        work,
        async enqueue(prompts) {
          const results = await producer.enqueueMany(
            prompts.map((prompt) => ({ request: { prompt, image: IMAGE } })),
          );
          const refused = results.find(({ ok }) => !ok);
          if (refused?.ok === false) throw refused.error;
        },
        async over() {
          const sizes = await Promise.all(ENDS.map((state) => rig.client.zcard(`${PREFIX}:state:${state}`)));
          const [succeeded = 0, ...others] = sizes;
          if (others.some((size) => size > 0)) throw new Error(`not all succeeded: ${sizes.join(', ')}`);
          return succeeded;
        },
        storeCpuSeconds: async () => (await countRedis(rig.client)).cpuSeconds,
        async close() {
          await Promise.all(workers.map((worker) => worker.stop()));
          await producer.close();
        },
      };
    },
  };
}

export const reelhaul: Contestant = reelhaulWith('reelhaul');
