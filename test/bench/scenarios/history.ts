/** Throughput with many finished generations behind it: the past must cost memory only. */
import type { Redis } from 'ioredis';
import { v7 as uuidv7 } from 'uuid';
import { reelhaul } from '../reelhaul.js';
import { drain, onRig, prompts, SETTINGS, until, warmUp, type Scenario } from '../scenario.js';

const DONE_SOON = () => 'duration=500ms';
const BATCH = 2000;
const PREFIX = '{reelhaul}';

/** Copies of a generation that really ran, so that they are as big as any. */
async function fill(client: Redis, count: number): Promise<void> {
  const [id = ''] = await client.zrange(`${PREFIX}:state:succeeded`, '0', '0');
  const keys = [`${PREFIX}:g:${id}`, `${PREFIX}:answers:${id}`];
  const dumps = await Promise.all(keys.map((key) => client.dumpBuffer(key)));
  const now = Date.now();
  for (let done = 0; done < count; done += BATCH) {
    const pipeline = client.pipeline();
    for (let i = done; i < Math.min(count, done + BATCH); i++) {
      const copy = uuidv7({ msecs: now - 3_600_000 + i });
      for (const [k, dump] of dumps.entries()) {
        if (dump) pipeline.restore(keys[k]!.replace(id, copy), 0, dump);
      }
      for (const index of ['state:succeeded', 'tenant:default:succeeded']) {
        pipeline.zadd(`${PREFIX}:${index}`, 0, copy);
      }
    }
    await pipeline.exec();
  }
}

export function history(scale: number): Scenario {
  const count = Math.round(3000 * scale);
  const sizes = [0, 1_000_000 * scale].map(Math.round);
  return {
    name: 'history',
    about: `${count.toLocaleString('en')} generations done at the first poll, with so many finished ones retained.`,
    subjects: sizes.map((size) => ({
      name: `${size.toLocaleString('en')} finished`,
      measure: () =>
        onRig(reelhaul, { ...SETTINGS, firstPollMs: 1000 }, async (rig, contest) => {
          await warmUp(contest, 200, DONE_SOON);
          await fill(rig.client, size);
          // The file of so many writes is rewritten by a child: that belongs to the filling.
          await until('the rewrite of the append-only file', async () => {
            const info = await rig.client.info('persistence');
            return /aof_rewrite_in_progress:0/.test(info) && /aof_rewrite_scheduled:0/.test(info);
          });
          return drain(rig, contest, prompts('late', count, DONE_SOON));
        }),
    })),
  };
}
