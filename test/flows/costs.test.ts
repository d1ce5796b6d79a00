/** What a generation costs Redis, in counts that do not depend on the machine. Who raises one raises it here too. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { startMonitor, type Told } from '../support/monitor.js';
import { createTestbed, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let server: LaunchedRedis;
let bed: Testbed;

beforeEach(async () => {
  // The setting of docker-compose.yml, under the name that every version knows.
  server = await launchRedis(['--hash-max-ziplist-value', '2048']);
  bed = await createTestbed({
    redisUrl: server.url,
    environment: { SWEEP_INTERVAL_MS: '3600000', POLL_FIRST_DELAY_MS: '1000', JOB_LOCK_MS: '60000' },
  });
});
afterEach(async () => {
  await bed.close();
  await server.stop();
});

const whenReal = realRedis ? test : test.skip;
const PROMPT = 'a paper boat on a rainy street, '.padEnd(300, 'slow pan, soft light, ');

/** Commands that name this generation, in their order, while `act` runs: those of scripts and of BullMQ included. */
async function commandsAbout(id: () => string, act: () => Promise<unknown>): Promise<Told[]> {
  const monitor = await startMonitor(server.url);
  await act();
  await bed.redis.get('the end');
  await until(
    () => monitor.seen.some(({ text }) => text === ' "the end"'),
    'the monitor to have seen it all',
  );
  monitor.stop();
  return monitor.seen.filter(({ text }) => text.includes(id()));
}

/** Bytes of all keys that name this generation. */
async function bytesOf(id: string): Promise<number> {
  const keys = await bed.redis.keys(`*${id}*`);
  const sizes = await Promise.all(keys.map((key) => bed.redis.memory('USAGE', key, 'SAMPLES', 0)));
  return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
}

whenReal(
  'a generation that is done at the first poll takes one poll, at most 150 commands about it, and 19 of them sent by a client',
  async () => {
    await bed.work();
    const warm = await bed.enqueue('warm [sim: duration=100ms]');
    await bed.reaches(warm.id, 'succeeded');
    let id = '';
    const commands = await commandsAbout(
      () => id,
      async () => {
        ({ id } = await bed.enqueue('counted [sim: duration=100ms]'));
        // Not by asking, which would be counted.
        await until(
          async () => (await bed.redis.zcard(`${bed.prefix}:state:succeeded`)) === 2,
          'the generation to succeed',
        );
      },
    );
    expect(commands.length).toBeLessThanOrEqual(150);
    expect(commands.filter(({ byScript }) => !byScript).length).toBeLessThanOrEqual(19);
    expect((await bed.reelhaul.get(id)).attempts).toMatchObject({ submit: 1, poll: 1, archive: 1 });
  },
);

whenReal('a generation takes at most 2,000 bytes of its own, in flight and finished', async () => {
  await bed.work();
  const flying = await bed.enqueue(`${PROMPT} [sim: duration=1h]`);
  await bed.reaches(flying.id, 'generating');
  const done = await bed.enqueue(`${PROMPT} [sim: duration=100ms]`);
  await bed.reaches(done.id, 'succeeded');
  await until(async () => (await bed.reelhaul.get(flying.id)).attempts.poll > 0, 'the first poll');
  // A poll under way has a lock of its own.
  for (const { id } of [flying, done])
    await until(
      async () => (await bytesOf(id)) <= 2000,
      async () => `${id} to take at most 2,000 bytes; it takes ${await bytesOf(id)}`,
    );
});

whenReal(
  'a poll of many that finds nothing new takes at most 45 commands, all that run included',
  async () => {
    await bed.close();
    bed = await createTestbed({
      redisUrl: server.url,
      environment: {
        SWEEP_INTERVAL_MS: '3600000',
        POLL_MIN_INTERVAL_MS: '500',
        POLL_MAX_INTERVAL_MS: '500',
        SUBMIT_CONCURRENCY: '20',
      },
    });
    await bed.work();
    const tasks = 80;
    for (let i = 0; i < tasks; i++) await bed.enqueue(`patience ${i} [sim: duration=1h, progress=none]`);
    const polls = () => bed.simulator.ledger().tasks.map((task) => task.polls);
    const total = () => polls().reduce((sum, n) => sum + n, 0);
    // The first ones have something to write down: that the task is there, and queued.
    await until(() => polls().length === tasks && polls().every((n) => n >= 3), 'some polls of each');
    const before = total();
    const commands = await commandsAbout(
      () => '',
      () => until(() => total() >= before + 1000, 'a thousand more polls'),
    );
    expect(commands.length / (total() - before)).toBeLessThanOrEqual(45);
  },
);
