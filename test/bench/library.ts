/**
 * `npm run bench:library`: what the library costs a producer: 10,000 generations in one `enqueueMany`, and pages of
 * `list` with few and with a million finished generations behind them. Prints milliseconds, median and spread.
 */
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { readConfig } from '../../src/config/config.js';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { fillWithFinished } from './finished.js';

const { values: flags } = parseArgs({
  options: { finished: { type: 'string', default: '1000000' }, rounds: { type: 'string', default: '3' } },
});
const PREFIX = '{bench}';
const PAGES = 50;

const redis = await launchRedis();
const client = new Redis(redis.url);
const reelhaul = await createReelhaul({ config: readConfig({ REDIS_URL: redis.url, REDIS_PREFIX: PREFIX }) });
const print = (text: string) => void process.stdout.write(`${text}\n`);
const rounds = Number(flags.rounds);

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function spread(figures: readonly number[]): string {
  const sorted = figures.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!.toFixed(2);
  return `${at(0.5)} (${at(0)} to ${at(1)})`;
}

async function pages(query: Parameters<typeof reelhaul.list>[0]): Promise<number[]> {
  const figures: number[] = [];
  let cursor: string | null = null;
  for (let i = 0; i < PAGES; i++) {
    figures.push(
      await timed(async () => {
        ({ cursor } = await reelhaul.list({ ...query, limit: 50, ...(cursor === null ? {} : { cursor }) }));
      }),
    );
  }
  return figures;
}

print(
  `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Redis ${redis.description}`,
);
const many: number[] = [];
for (let i = 0; i < rounds; i++) {
  const items = Array.from({ length: 10_000 }, (_, n) => ({
    request: { prompt: `number ${i}/${n}` },
    delayMs: 86_400_000,
  }));
  many.push(await timed(() => reelhaul.enqueueMany(items)));
}
print(`enqueueMany of 10,000, ms: ${spread(many)}`);
for (const finished of [10_000, Number(flags.finished)]) {
  await fillWithFinished(client, PREFIX, finished);
  print(`with ${finished.toLocaleString('en')} more finished, ms a page of 50:`);
  print(`  list all            ${spread(await pages({}))}`);
  print(`  list one state      ${spread(await pages({ state: 'succeeded' }))}`);
  print(`  list one tenant     ${spread(await pages({ tenant: 'default' }))}`);
}
await reelhaul.close();
await client.quit();
await redis.stop();
