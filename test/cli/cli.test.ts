/** The command line and the worker as real processes: plain messages, exit codes, no stack traces, orderly stops. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import { cliFile, createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';
import { runCommand, runProcess, type CommandResult } from '../support/command-line.js';
import { SECRET, startReceiver } from '../support/receiver.js';
import { until } from '../support/until.js';

let bed: Testbed;
beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(() => bed.close());
const reelhaul = (...args: string[]) => runCommand(args, bed.environment);

function refused({ code, out, err }: CommandResult, ...words: (string | RegExp)[]): void {
  expect(code).not.toBe(0);
  expect(out + err).not.toMatch(/\n\s+at .*\.js/);
  for (const word of words) expect(err).toMatch(word);
}

const whenReal = realRedis ? test : test.skip;

describe('what is wrong is said in one message, without a stack', () => {
  test('a request, every field of it', async () => {
    const result = await reelhaul(
      'enqueue',
      '--image',
      'http://10.0.0.1/x.png',
      '--ratio',
      'wide',
      '--seconds',
      '7',
    );
    refused(result, 'request.prompt', 'request.image', 'request.ratio', 'request.options.seconds');
    expect(await bed.redis.exists(`${bed.prefix}:state:queued`)).toBe(0);
  });

  test('an environment, every variable of it', async () => {
    const result = await runCommand(['worker'], {
      ...bed.environment,
      SUBMIT_CONCURRENCY: 'x',
      LOG_LEVEL: 'y',
      REDIS_URL: 'z',
    });
    refused(result, 'SUBMIT_CONCURRENCY: expected', 'LOG_LEVEL: expected', 'REDIS_URL: expected');
  });

  test('a missing key', async () => {
    refused(await runCommand(['worker'], { ...bed.environment, COMETAPI_KEY: '' }), 'COMETAPI_KEY: expected');
  });

  test('a Redis that takes connections and never answers: nobody waits for it without a word', async () => {
    const mute = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    const { port } = mute.address() as AddressInfo;
    const environment = { ...bed.environment, REDIS_URL: `redis://127.0.0.1:${port}`, PORT: '0' };
    const results = await Promise.all(
      ['worker', 'serve', 'list'].map((verb) => runProcess([verb], environment)),
    );
    for (const result of results)
      refused(result, /cannot be used: it takes connections and has not answered/);
    await new Promise((resolve) => mute.close(resolve));
  });

  test('a Redis that cannot be reached', async () => {
    for (const command of [['worker'], ['list'], ['serve']]) {
      refused(
        await runCommand(command, { ...bed.environment, REDIS_URL: 'redis://me:secret99@127.0.0.1:9' }),
        /127\.0\.0\.1:9 cannot be used/,
      );
    }
  });

  test('a port that is taken, before any job is', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    const { id } = await bed.enqueue('untouched');
    for (const command of [['serve'], ['worker', '--serve']]) {
      refused(
        await runProcess(command, { ...bed.environment, PORT: String(port) }),
        'another port with PORT',
      );
    }
    const busy = { ...bed.environment, WORKER_PORT: String(port) };
    refused(await runProcess(['worker'], busy), 'another port with WORKER_PORT');
    const simulate = ['simulate', '--port', String(port)];
    refused(await runProcess(simulate, bed.environment), 'another port with --port');
    expect((await bed.reelhaul.get(id)).state).toBe('queued');
    taken.close();
  });

  test.each([
    ['redis://127.0.0.1/abc', 'number of a database'],
    ['redis://:%zz@127.0.0.1', 'percent-encoded'],
  ])('%s', async (url, words) => {
    refused(await runCommand(['list'], { ...bed.environment, REDIS_URL: url }), words);
  });

  (realRedis ? test : test.skip)('a database that the server does not have', async () => {
    refused(
      await runCommand(['list'], { ...bed.environment, REDIS_URL: `${bed.environment['REDIS_URL']}/99` }),
      'no database 99',
    );
  });

  test('a page that cannot be', async () => {
    refused(
      await reelhaul('list', '--limit', '0', '--cursor', 'garbage'),
      'limit: expected',
      'cursor: expected',
    );
  });

  test('a folder that cannot be written', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'reelhaul-test-'));
    await writeFile(join(folder, 'file'), 'in the way');
    refused(
      await runProcess(['worker'], { ...bed.environment, STORAGE_URL: `file:${folder}/file/archive` }),
      /file\/archive/,
    );
    await rm(folder, { recursive: true });
  });

  test.each([
    ['get', 'nobody'],
    ['cancel', 'nobody'],
    ['retry', 'nobody'],
    ['wait-for', 'nobody'],
    ['waitFor', 'nobody'],
    ['retry-notification', 'nobody'],
    ['retryNotification', 'nobody'],
  ])('%s %s', async (...args) => {
    refused(await reelhaul(...args), 'no generation nobody');
  });

  test.each([
    [['enqueue', '--seconds', 'five']],
    [['enqueue', '--unknown']],
    [['worker', '--stages', 'submit,dance']],
    [['list', '--state', 'lost']],
    [['decide', 'x']],
    [['nonsense']],
  ])('%j is a wrong command line: exit code 2', async (args) => {
    const result = await reelhaul(...args);
    refused(result);
    expect(result.code).toBe(2);
  });
});

(realRedis ? describe : describe.skip)('a Redis that would lose jobs', () => {
  test('is refused for its eviction policy', async () => {
    const redis = await launchRedis(['--maxmemory-policy', 'allkeys-lru']);
    try {
      const environment = { ...bed.environment, REDIS_URL: redis.url };
      refused(
        await runCommand(['worker'], environment),
        'expected maxmemory-policy noeviction',
        'got allkeys-lru',
      );
      refused(await runCommand(['enqueue', '--prompt', 'x'], environment), 'noeviction');
    } finally {
      await redis.stop();
    }
  });
});

test('nothing in a prompt steers the terminal', async () => {
  await bed.enqueue('red \u001b[31m and \u202eback');
  const { out } = await reelhaul('list');
  expect(out).toContain('red ');
  for (const steering of ['\u001b', '\u202e']) expect(out).not.toContain(steering);
});

describe('doctor', () => {
  test('finds a good set-up good, and hides the key', async () => {
    const { code, out, err } = await reelhaul('doctor');
    expect(out + err).not.toContain(bed.environment['COMETAPI_KEY']);
    const good = ['Redis', 'clock', 'memory', 'workers', 'storage', 'provider'];
    // The embedded server does not tell its eviction policy, and keeps nothing.
    for (const about of realRedis ? [...good, 'eviction', 'persistence'] : good)
      expect(out).toMatch(new RegExp(`^ok +${about}:`, 'm'));
    expect(code).toBe(0);
  });

  test('names everything that is broken', async () => {
    const { code, out } = await runCommand(['doctor', '--json'], {
      ...bed.environment,
      COMETAPI_KEY: '',
      REDIS_URL: 'redis://127.0.0.1:9',
      STORAGE_URL: 'file:/dev/null/archive',
      SHUTDOWN_TIMEOUT_MS: '1000',
      COMETAPI_BASE_URL: 'https://api.cometapi.com',
      PUBLIC_URL: 'http://localhost:1',
      CALLBACK_SECRET: 'a secret for the tests',
    });
    const findings = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { level: string; about: string });
    expect(findings.filter(({ level }) => level === 'error').map(({ about }) => about)).toEqual([
      'COMETAPI_KEY',
      'Redis',
      'storage',
      'callbacks',
    ]);
    expect(findings.filter(({ level }) => level === 'warning').map(({ about }) => about)).toEqual(
      expect.arrayContaining(['SHUTDOWN_TIMEOUT_MS', 'provider']),
    );
    expect(code).toBe(1);
  });

  test('tells the balance, and neither there nor in a failure the key that stands in the address', async () => {
    const quotaKey = 'quota-key-0123456789';
    const environment = { ...bed.environment, COMETAPI_QUOTA_KEY: quotaKey, LOG_LEVEL: 'trace' };
    const good = await runCommand(['doctor'], { ...environment, COMETAPI_QUOTA_URL: bed.simulator.url });
    expect(good.out).toMatch(/^ok +balance: 10000000 left, 0 used/m);
    const bad = await runCommand(['doctor'], { ...environment, COMETAPI_QUOTA_URL: 'http://127.0.0.1:9' });
    expect(bad.out).toMatch(/^warning +balance: .*ECONNREFUSED/m);
    expect(bad.code).toBe(0);
    for (const { out, err } of [good, bad]) expect(out + err).not.toContain(quotaKey);
  });

  whenReal('says of a good set-up what docs/operating.md shows', async () => {
    const guide = readFileSync(new URL('../../docs/operating.md', import.meta.url), 'utf8');
    const [, shown = ''] = /^\$ npx reelhaul doctor\n(.*?)^```/ms.exec(guide)!;
    const worker = bed.spawnWorker();
    await until(() => bed.redis.exists(`${bed.prefix}:swept`).then((n) => n === 1), 'a sweep');
    const { out } = await reelhaul('doctor');
    worker.child.kill('SIGTERM');
    await worker.exited;
    // Addresses, folders and figures are those of the place.
    const alike = (text: string) =>
      text
        .split('\n')
        .filter((line) => !/^(setting|warning +SHUTDOWN_TIMEOUT_MS)/.test(line))
        .join('\n')
        .replaceAll(/\b\w+:\/\/[\w.]+(:\d+)?/g, 'URL')
        .replaceAll(/(?<=directory )[^:]+/g, 'FOLDER')
        .replaceAll(/-?\d+(\.\d+)*/g, 'N');
    expect(alike(out)).toBe(alike(shown));
    expect(out).toContain('setting  COMETAPI_KEY=(set)\n');
  });

  test('says of a broken set-up what docs/operating.md shows', async () => {
    const guide = readFileSync(new URL('../../docs/operating.md', import.meta.url), 'utf8');
    const [, given = '', shown = ''] = /^\$ (\S+=.*) npx reelhaul doctor\n(.*?)^```/ms.exec(guide)!;
    const { out } = await runProcess(
      ['doctor'],
      parseEnv(given.replaceAll(' ', '\n')) as Record<string, string>,
    );
    expect(out.replace(/(?<=reelhaul-probe\/)[0-9a-f-]+/, '…')).toBe(shown);
  });

  whenReal('says what to do about every warning and error, and shows which secrets are set', async () => {
    const { out } = await runCommand(['doctor'], {
      ...bed.environment,
      COMETAPI_BASE_URL: 'http://127.0.0.1:9',
      COMETAPI_QUOTA_KEY: 'quota-key-0123456789',
      COMETAPI_QUOTA_URL: 'http://127.0.0.1:9',
      STORAGE_URL: 'file:/dev/null/archive',
      PUBLIC_URL: 'https://172.16.0.1',
      CALLBACK_SECRET: 'a secret for the tests',
      API_TOKENS: 'a-token-of-16-or-more',
    });
    const bad = out.split('\n').filter((line) => /^(warning|error)/.test(line));
    expect(bad.map((line) => line.split(/[ :]+/)[1])).toEqual([
      'SHUTDOWN_TIMEOUT_MS',
      'storage',
      'provider',
      'balance',
      'callbacks',
    ]);
    for (const line of bad) expect(line).toMatch(/(Check|Set) [A-Z_]+|Raise it/);
    expect(out).toMatch(/^error +callbacks:/m);
    expect(out).toContain('API_TOKENS=(set)');
    expect(out).not.toContain('NOTIFY_SECRET=');
  });

  test('ends although the storage never answers, and says that', async () => {
    const silent = createServer((socket) => socket.resume());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    const { out, code } = await runCommand(['doctor'], {
      ...bed.environment,
      STORAGE_URL: `s3://reels?endpoint=http://127.0.0.1:${port}&forcePathStyle=true`,
      AWS_ACCESS_KEY_ID: 'key',
      AWS_SECRET_ACCESS_KEY: 'secret',
    });
    expect(out).toMatch(/^error +storage:.*has not answered.*Check STORAGE_URL/m);
    expect(code).toBe(1);
    await new Promise((resolve) => silent.close(resolve));
  });

  whenReal('sees a Redis that evicts, keeps nothing, and has no replica to wait for', async () => {
    const redis = await launchRedis(['--maxmemory-policy', 'allkeys-lru', '--appendonly', 'no']);
    const { out, code } = await runCommand(['doctor'], {
      ...bed.environment,
      REDIS_URL: redis.url,
      LEDGER_WAIT_REPLICAS: '1',
    });
    expect(out).toMatch(/^error +Redis:.*allkeys-lru/m);
    expect(out).toMatch(/^error +eviction: allkeys-lru .*noeviction/m);
    expect(out).toMatch(/^warning +persistence:.*appendonly yes/m);
    expect(out).toMatch(/^error +replicas:/m);
    expect(code).toBe(1);
    await redis.stop();
  });

  test('is told that the key is wrong, at no cost', async () => {
    await bed.close();
    bed = await createTestbed({ simulator: { apiKey: 'the-right-key' } });
    const { out } = await reelhaul('doctor');
    expect(out).toMatch(/^error +provider:.*COMETAPI_KEY/m);
    expect(bed.simulator.ledger().totals.submits).toBe(0);
  });
});

describe('from enqueue to the end', () => {
  test('the words of the library, as JSON for programs', async () => {
    const worker = bed.spawnWorker();
    const enqueued = await reelhaul(
      'enqueue',
      '--prompt',
      'a boat',
      '--image',
      image,
      '--key',
      'k',
      '--wait',
      '--json',
    );
    expect(enqueued.code).toBe(0);
    const generation = JSON.parse(enqueued.out);
    expect(Object.keys(generation).sort()).toEqual(
      [
        ...[
          'id',
          'state',
          'tenant',
          'idempotencyKey',
          'request',
          'metadata',
          'taskId',
          'otherTaskIds',
          'progress',
          'late',
        ],
        ...[
          'charge',
          'attempts',
          'failure',
          'assets',
          'warnings',
          'createdAt',
          'submittedAt',
          'finishedAt',
          'updatedAt',
          'waitsFor',
        ],
        'deadlineAt',
      ].sort(),
    );
    expect(JSON.parse((await reelhaul('get', generation.id, '--json')).out)).toEqual(generation);
    expect(JSON.parse((await reelhaul('list', '--json')).out)).toEqual(generation);
    expect((await reelhaul('get', generation.id, '--answers')).out.trim().split('\n')).toHaveLength(2);
    expect((await reelhaul('list')).out).toContain(generation.id);
    refused(await reelhaul('cancel', generation.id), 'over already');
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
  });

  test('many at once from a file, each line with its own result', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'reelhaul-test-'));
    const file = join(folder, 'orders.jsonl');
    const lines = [
      ...[
        '{"prompt":"bare"}',
        '{"request":{"prompt":"full"},"tenant":"a","idempotencyKey":"k"}',
        'not json',
        '',
      ],
      ...['{"prompt":""}', '{"request":{"prompt":"full"},"tenant":"a","idempotencyKey":"k"}'],
    ];
    await writeFile(file, `\uFEFF${lines.join('\n')}`);
    const { code, out, err } = await reelhaul('enqueue', '--file', file);
    await rm(folder, { recursive: true });
    expect(out).toBe('2 stored, 1 known already, 2 refused\n');
    expect(err).toMatch(/^line 3: .*JSON/m);
    expect(err).toMatch(/^line 5: [\s\S]*request.prompt/m);
    expect(code).toBe(1);
    expect((await bed.reelhaul.list()).generations).toHaveLength(2);
  });

  test('a wait that needs a decision says so, and goes on once it is made', async () => {
    await bed.work();
    const prompt = 'lost answer [sim: submit=reset-after]';
    const waiting = bed.spawnWorker({}, [cliFile, 'enqueue', '--prompt', prompt, '--image', image, '--wait']);
    const id = await until(
      () => /reelhaul decide (\S+) --give-up/.exec(waiting.output())?.[1],
      'the wait to tell how to settle it',
    );
    expect(waiting.output()).toContain('may have accepted and billed it');
    await bed.reelhaul.decide(id, { giveUp: true });
    expect(await waiting.exited).toBe(1);
    expect(waiting.output()).toContain('submission_unconfirmed');
  });

  test('a list of one tenant', async () => {
    const { id } = await bed.enqueue('of acme', { tenant: 'acme' });
    await bed.enqueue('of another', { tenant: 'another' });
    const { out } = await reelhaul('list', '--tenant', 'acme', '--json');
    expect(JSON.parse(out)).toMatchObject({ id, tenant: 'acme' });
  });

  test('watch tells what happens until the end of the one that is watched', async () => {
    const { id } = await bed.enqueue('watched');
    const watching = bed.spawnWorker({}, [cliFile, 'watch', id]);
    await until(() => watching.output().includes('queued'), 'the watch to begin');
    await bed.work();
    expect(await watching.exited).toBe(0);
    expect(watching.output()).toMatch(/succeeded\n$/);
    const after = await reelhaul('watch', id);
    expect([after.code, after.out.includes('succeeded')]).toEqual([0, true]);
  });

  test('a generation that fails gives exit code 1 and says why', async () => {
    bed.spawnWorker();
    const { code, out } = await reelhaul(
      'enqueue',
      '--prompt',
      'bad [sim: submit=rejected*forever]',
      '--image',
      image,
      '--wait',
    );
    expect(code).toBe(1);
    expect(out).toContain('request_rejected');
  });

  test('cancel says whether it may be billed all the same', async () => {
    const { id } = await bed.enqueue('never mind');
    const free = await reelhaul('cancel', id);
    expect([free.code, free.err]).toEqual([0, '']);
    bed.spawnWorker();
    const running = await bed.enqueue('too late [sim: duration=10s]');
    await bed.reaches(running.id, 'generating');
    expect((await reelhaul('cancel', running.id)).err).toContain('may be billed all the same');
    expect((await bed.reelhaul.get(running.id)).state).toBe('canceled');
  });
});

test('erase says what may still be billed, and what it kept of a tenant', async () => {
  const { id } = await bed.enqueue('queued');
  refused(await reelhaul('erase', id), 'may still be billed', 'evenIfBilled');
  expect((await reelhaul('erase', id, '--tenant', 'default')).code).toBe(2);
  const kept = await reelhaul('erase', '--tenant', 'default');
  expect(kept).toMatchObject({ code: 1, out: '0 erased, 1 kept\n' });
  const { code, out } = await reelhaul('erase', id, '--even-if-billed');
  expect({ code, out }).toEqual({ code: 0, out: `${id}  erased (was queued)  charge: none\n` });
});

describe('a worker', () => {
  /** Some of the video has left the simulator: its script is used up, the next download is a quick one. */
  const downloading = () =>
    until(
      () => bed.simulator.ledger().tasks[0]?.assetRequests.some(({ sentBytes }) => sentBytes > 0),
      'the download to begin',
    );

  test('logs JSON without the key, whatever happens', async () => {
    const worker = bed.spawnWorker({ LOG_LEVEL: 'trace' });
    for (const script of ['duration=0', 'poll=401', 'video=503', 'submit=rejected*forever']) {
      const { id } = await bed.enqueue(`logged [sim: ${script}]`);
      await bed.reelhaul.waitFor(id);
    }
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    const lines = worker.output().trim().split('\n');
    expect(lines.length).toBeGreaterThan(10);
    for (const line of lines) expect(() => JSON.parse(line)).not.toThrow();
    expect(worker.output()).not.toContain(bed.environment['COMETAPI_KEY']);
  });

  test('on SIGTERM finishes the submit that is under way, takes no new one, and exits 0', async () => {
    const worker = bed.spawnWorker({ SUBMIT_CONCURRENCY: '1' });
    const running = await bed.enqueue('under way [sim: submit-delay=700ms]');
    const next = await bed.enqueue('next');
    await until(() => bed.simulator.ledger().totals.submits === 1, 'the submit to arrive');
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect((await bed.reelhaul.get(running.id)).state).toBe('generating');
    expect((await bed.reelhaul.get(next.id)).state).toBe('queued');
    expect(bed.simulator.ledger().totals.submits).toBe(1);
  });

  test('gives back what does not finish in time, and another one ends it', async () => {
    const worker = bed.spawnWorker({ SHUTDOWN_TIMEOUT_MS: '3000' });
    const { id } = await bed.enqueue('slow to fetch [sim: video=slow:20s]');
    await bed.reaches(id, 'archiving');
    await downloading();
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect((await bed.reelhaul.get(id)).state).toBe('archiving');
    await bed.work();
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  });

  test('killed in the middle of a download leaves no half file, and another one ends it', async () => {
    const worker = bed.spawnWorker();
    const { id } = await bed.enqueue('cut [sim: video=slow:20s]');
    await downloading();
    const files = async () =>
      (await readdir(bed.archive, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => join(parentPath, name).slice(bed.archive.length + 1));
    await until(async () => (await files()).length > 0, 'the first bytes to be written');
    worker.child.kill('SIGKILL');
    await worker.exited;
    // Nobody who looks for videos finds one: what was begun lies in the folder of unfinished files.
    const left = await files();
    expect(left).toEqual([expect.stringMatching(/^\.reelhaul-partial\//)]);
    await bed.work();
    expect((await bed.reelhaul.waitFor(id)).assets!.video.sha256).toBe(
      bed.simulator.ledger().tasks[0]!.assets.video.sha256,
    );
  });

  test('runs only the stages it is told to', async () => {
    const worker = bed.spawnWorker({}, [cliFile, 'worker', '--stages', 'submit']);
    const { id } = await bed.enqueue('half way');
    await bed.reaches(id, 'generating');
    await bed.work({ stages: ['poll', 'archive'] });
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
  });
});

describe('notifications', () => {
  test('that were given up are listed, and sent again', async () => {
    await bed.close();
    const receiver = await startReceiver();
    bed = await createTestbed({
      environment: { NOTIFY_SECRET: SECRET, NOTIFY_ALLOW_HOSTS: '127.0.0.1', NOTIFY_ATTEMPTS: '1' },
    });
    receiver.answer({ status: 500 });
    await bed.work();
    const { id } = await bed.enqueue('unheard', { notifyUrl: receiver.url });
    await until(
      async () => (await bed.reelhaul.deadNotifications()).generations === 1,
      'a dead notification',
    );
    expect((await reelhaul('notifications')).out).toMatch(/generation\.succeeded {2}dead after 1 tries/);
    expect(JSON.parse((await reelhaul('notifications', id, '--json')).out)).toMatchObject({
      generationId: id,
    });
    expect(await reelhaul('retry-notification', id)).toMatchObject({
      code: 0,
      out: '1 will be sent again\n',
    });
    await until(() => receiver.received.length === 2, 'it to be sent again');
    expect((await reelhaul('retry-notification', id)).code).toBe(1);
    await receiver.close();
  });
});
