/**
 * `npm run fuzz -- [cases] [seed]`: random bytes, sizes, depths and speeds against every route of a real server, with the
 * delay of its event loop and its memory as figures.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { readConfig } from '../../src/config/config.js';
import { fuzz } from './fuzz.js';

const [cases = 100_000, seed = Date.now() % 1_000_000] = process.argv.slice(2).map(Number);
const redis = await launchRedis();

const archive = await mkdtemp(join(tmpdir(), 'reelhaul-fuzz-'));
const environment = {
  REDIS_URL: redis.url,
  REDIS_PREFIX: '{fuzz}',
  STORAGE_URL: `file:${archive}`,
  CALLBACK_SECRET: 'a secret for the fuzzing',
};
try {
  const reelhaul = await createReelhaul({ config: readConfig(environment) });
  const { id } = await reelhaul.enqueue({ prompt: 'fuzzed' }, { delayMs: 3_600_000 });
  await reelhaul.close();
  const startedAt = Date.now();
  const print = (text: string) => process.stdout.write(`${text}\n`);
  print(`${cases} cases, seed ${seed}`);
  const result = await fuzz({
    cases,
    seed,
    atOnce: 64,
    environment,
    generationId: id,
    onFigures: (done, { delayMs, rssMb, heapMb }) =>
      print(
        `${done} cases: loop delay p50 ${delayMs.p50} ms, p99 ${delayMs.p99} ms, max ${delayMs.max} ms; ${rssMb} MB, heap ${heapMb} MB`,
      ),
  });
  print(JSON.stringify({ seconds: Math.round((Date.now() - startedAt) / 1000), ...result.statuses }));
  for (const line of result.figures.at(-1)?.unforeseen ?? []) print(line);
  process.exitCode = result.failed.length > 0 ? 1 : 0;
  if (result.failed.length > 0) print(`answered with 500: cases ${result.failed.slice(0, 20).join(', ')}`);
} finally {
  await redis.stop();
  await rm(archive, { recursive: true, force: true });
}
