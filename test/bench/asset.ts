/**
 * `npm run bench:asset`: one big synthetic video, hauled by a real worker process from the simulator to the local disk,
 * verified on the way. Prints the rate and the worker's peak memory, over some rounds beside a round with a tiny asset.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { readConfig } from '../../src/config.js';
import { launchRedis } from '../../src/demo/redis-server.js';
import { createReelhaul } from '../../src/producer.js';

const cliFile = fileURLToPath(new URL('../../src/cli.js', import.meta.url));
const { values: flags } = parseArgs({
  options: { size: { type: 'string', default: '2GB' }, rounds: { type: 'string', default: '3' } },
});

interface Round {
  readonly size: string;
  readonly seconds: number;
  readonly megabytesPerSecond: number;
  readonly peakMegabytes: number;
}

/** Peak resident memory of a process, as Linux counts it. */
async function peakMegabytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? NaN) / 1024;
}

async function haul(size: string): Promise<Round> {
  const redis = await launchRedis();
  const archive = await mkdtemp(join(tmpdir(), 'reelhaul-bench-'));
  const { PATH = '', HOME = '' } = process.env;
  const simulator = spawn(process.execPath, [cliFile, 'simulate', '--duration-ms', '100']);
  const [greeting] = (await once(simulator.stdout, 'data')) as [Buffer];
  const url = /http:\S+(?=;)/.exec(greeting.toString())![0];
  const environment = {
    COMETAPI_KEY: 'bench-key-0123456789',
    COMETAPI_BASE_URL: url,
    REDIS_URL: redis.url,
    STORAGE_URL: `file:${archive}`,
    ARCHIVE_ALLOW_HOSTS: new URL(url).host,
    LOG_LEVEL: 'silent',
    POLL_FIRST_DELAY_MS: '150',
  };
  const worker = spawn(process.execPath, [cliFile, 'worker'], {
    env: { PATH, HOME, ...environment },
    stdio: 'inherit',
  });
  const reelhaul = await createReelhaul({ config: readConfig(environment) });
  try {
    const { id } = await reelhaul.enqueue({
      prompt: `big [sim: size=${size}]`,
      image: 'https://example.com/still.png',
    });
    let beganAt = 0;
    const { state, failure, assets, finishedAt } = await reelhaul.waitFor(id, {
      onProgress: (generation) => {
        if (generation.state === 'archiving') beganAt = generation.updatedAt;
      },
    });
    if (state !== 'succeeded') throw new Error(`the generation ended ${state}: ${failure?.message}`);
    const seconds = Math.max(0.001, (finishedAt! - beganAt) / 1000);
    const megabytesPerSecond = assets!.video.sizeBytes / 1e6 / seconds;
    return { size, seconds, megabytesPerSecond, peakMegabytes: await peakMegabytes(worker.pid!) };
  } finally {
    await reelhaul.close();
    for (const child of [worker, simulator]) {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    }
    await redis.stop();
    await rm(archive, { recursive: true, force: true });
  }
}

process.stdout.write(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}\n`);
const rounds: Round[] = [await haul('10KB')];
for (let i = 0; i < Number(flags.rounds); i++) rounds.push(await haul(flags.size));
process.stdout.write('size      seconds   MB/s   worker peak RSS (MB)\n');
for (const { size, seconds, megabytesPerSecond, peakMegabytes: peak } of rounds) {
  process.stdout.write(
    `${size.padEnd(8)} ${seconds.toFixed(2).padStart(8)} ${megabytesPerSecond.toFixed(0).padStart(6)} ${peak.toFixed(0).padStart(8)}\n`,
  );
}
