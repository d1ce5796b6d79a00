/** Redis behind TLS with an authority of one's own, and a user who may do only what docs/redis.md lists. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/config.js';
import { freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { RedisUnusableError } from '../../src/errors.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { CERTIFICATE, KEY } from '../provider/tls.js';
import { startApi } from '../support/api.js';
import { launchCluster, type TestCluster } from '../support/cluster.js';
import { ACCOUNTS, OPERATOR, visit } from '../support/dashboard.js';
import { SECRET, startReceiver } from '../support/receiver.js';
import { ask } from '../support/sentinel.js';
import { createTestbed, realRedis, redisUrl, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const cleanUps: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

async function setUp(options: Parameters<typeof createTestbed>[0]): Promise<Testbed> {
  const bed = await createTestbed(options);
  cleanUps.push(() => bed.close());
  return bed;
}

(realRedis ? describe : describe.skip)('Redis over TLS', () => {
  let redis: LaunchedRedis;
  let tlsPort: number;
  let folder: string;
  let certificate: string;
  let key: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'reelhaul-tls-'));
    certificate = join(folder, 'cert.pem');
    key = join(folder, 'key.pem');
    // It signed itself, so that it is its own authority; the server asks its clients for one it trusts.
    await Promise.all([writeFile(certificate, CERTIFICATE), writeFile(key, KEY)]);
    tlsPort = await freePort();
    redis = await launchRedis([
      ...['--tls-port', String(tlsPort), '--tls-auth-clients', 'yes'],
      ...['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', certificate],
    ]);
  });
  afterAll(async () => {
    await redis.stop();
    await rm(folder, { recursive: true });
  });

  /** How apps and workers reach it; the test's own connection takes the plain port. */
  const through = (files: Record<string, string>) => ({
    redisUrl: redis.url,
    environment: { REDIS_URL: `rediss://127.0.0.1:${tlsPort}`, ...files },
  });

  test('with a certificate that nothing can check, when REDIS_TLS_VERIFY=false says so', async () => {
    const files = { REDIS_TLS_CERT_FILE: certificate, REDIS_TLS_KEY_FILE: key };
    const bed = await setUp(through({ ...files, REDIS_TLS_VERIFY: 'false' }));
    await bed.work();
    const { id } = await bed.enqueue('encrypted all the same');
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  });

  test('with its own authority and a client certificate: a generation goes all the way', async () => {
    const files = {
      REDIS_TLS_CA_FILE: certificate,
      REDIS_TLS_CERT_FILE: certificate,
      REDIS_TLS_KEY_FILE: key,
    };
    const bed = await setUp(through(files));
    const worker = bed.spawnWorker({ LOG_LEVEL: 'info' });
    const { id } = await bed.enqueue('behind a lock');
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(worker.output()).toContain('worker started');
  });

  test.each<[string, Record<string, string>, RegExp]>([
    ['an authority that nobody told of', {}, /self-signed certificate.*Check rediss.*REDIS_TLS_CA_FILE/],
    [
      'a file that is not there',
      { REDIS_TLS_CA_FILE: '/no/such.pem' },
      /REDIS_TLS_CA_FILE cannot be read: .*ENOENT/,
    ],
    [
      'a client without the certificate it is asked for',
      { REDIS_TLS_CA_FILE: 'the certificate' },
      /cannot be used/,
    ],
  ])('%s is refused, and said', async (_, files, message) => {
    const read = Object.fromEntries(
      Object.entries(files).map(([name, file]) => [name, file === 'the certificate' ? certificate : file]),
    );
    const config = readConfig({ REDIS_URL: `rediss://127.0.0.1:${tlsPort}`, ...read });
    await expect(createReelhaul({ config })).rejects.toThrow(message);
  });
});

(realRedis ? test : test.skip)('TLS towards a server that speaks none is said as such', async () => {
  const config = readConfig({ REDIS_URL: redisUrl().replace('redis://', 'rediss://') });
  await expect(createReelhaul({ config })).rejects.toThrow(/cannot be used: .*Check rediss:\/\//);
});

test('REDIS_TLS_VERIFY=false is for rediss:// alone', () => {
  expect(() => readConfig({ REDIS_TLS_VERIFY: 'false' })).toThrow(/REDIS_URL: expected rediss:\/\//);
});

test('files for TLS without rediss:// or only half of a pair are refused', () => {
  expect(() => readConfig({ REDIS_TLS_CA_FILE: 'ca.pem' })).toThrow(/REDIS_URL: expected rediss:\/\//);
  expect(() => readConfig({ REDIS_URL: 'rediss://host', REDIS_TLS_CERT_FILE: 'c.pem' })).toThrow(
    /expected together with REDIS_TLS_KEY_FILE/,
  );
});

describe('a user with the rights of docs/redis.md', () => {
  const guide = readFileSync(fileURLToPath(new URL('../../docs/redis.md', import.meta.url)), 'utf8');
  const line = /^user reelhaul (on >password .*)$/m.exec(guide)![1]!;

  /** The line as it stands there, but for the prefix of this test and what this server does not know yet. */
  async function allow({ port }: LaunchedRedis, prefix: string): Promise<void> {
    const done = await ask(port, async (redis) => {
      const [found] = (await redis.call('COMMAND', 'INFO', 'waitaof')) as unknown[];
      const unknown = found === null ? ['+waitaof', '+client|setinfo'] : [];
      const rules = line.replace('~{reelhaul}:*', `~${prefix}:*`).split(' ');
      const known = rules.filter((rule) => !unknown.includes(rule));
      return redis.call('ACL', 'SETUSER', 'reelhaul', ...known);
    });
    expect(done).toBe('OK');
  }
  const asUser = (url: string) => url.replace('redis://', 'redis://reelhaul:password@');

  async function runAll(bed: Testbed, url: string, hook: string): Promise<void> {
    const environment = { ...bed.environment, REDIS_URL: asUser(url), NOTIFY_SECRET: SECRET };
    const config = readConfig({ ...environment, NOTIFY_ALLOW_HOSTS: '127.0.0.1', LEDGER_WAIT_REPLICAS: '0' });
    const reelhaul = await createReelhaul({ config });
    cleanUps.push(() => reelhaul.close());
    await bed.work({ config });
    const request = { prompt: 'within its rights', image: 'https://example.com/still.png' };
    const { id } = await reelhaul.enqueue(request, { idempotencyKey: 'one', notifyUrl: hook, priority: 3 });
    expect((await reelhaul.waitFor(id)).state).toBe('succeeded');
    const later = await reelhaul.enqueue(request, { delayMs: 3_600_000 });
    expect((await reelhaul.cancel(later.id)).generation.state).toBe('canceled');
    const failed = await reelhaul.enqueue({ ...request, prompt: '[sim: submit-rejected]' });
    expect((await reelhaul.waitFor(failed.id)).state).toBe('failed');
    await reelhaul.retry(failed.id);
    expect((await reelhaul.list()).generations).toHaveLength(3);
  }

  (realRedis ? test : test.skip)('runs everything on one server, and was denied nothing', async () => {
    const redis = await launchRedis();
    cleanUps.push(() => redis.stop());
    const receiver = await startReceiver();
    cleanUps.push(() => receiver.close());
    const bed = await setUp({ redisUrl: redis.url });
    await allow(redis, bed.prefix);
    await runAll(bed, redis.url, receiver.url);
    await until(() => receiver.received.length > 0, 'the notification');
    // A sweep has been as well by then.
    await until(() => bed.redis.exists(`${bed.prefix}:swept`), 'a sweep');
    expect(await bed.redis.call('ACL', 'LOG')).toEqual([]);
    await bed.redis.call('ACL', 'LOG', 'RESET');
    const stranger = { ...bed.config, REDIS_URL: asUser(redis.url), REDIS_PREFIX: '{another}' };
    await expect(bed.work({ config: stranger })).rejects.toThrow(/expected it to take writes, got: NOPERM/);
  });

  (realRedis ? test : test.skip)('needs no INFO and no CONFIG, which managed servers refuse', async () => {
    const redis = await launchRedis();
    cleanUps.push(() => redis.stop());
    const receiver = await startReceiver();
    cleanUps.push(() => receiver.close());
    const bed = await setUp({ redisUrl: redis.url });
    await allow(redis, bed.prefix);
    await bed.redis.call('ACL', 'SETUSER', 'reelhaul', '-info', '-config');
    await runAll(bed, redis.url, receiver.url);
    await until(() => receiver.received.length > 0, 'the notification');
  });

  (realRedis ? test : test.skip)('is told which right is missing', async () => {
    const redis = await launchRedis();
    cleanUps.push(() => redis.stop());
    const bed = await setUp({ redisUrl: redis.url });
    await allow(redis, bed.prefix);
    const config = { ...bed.config, REDIS_URL: asUser(redis.url) };
    for (const right of ['time', 'eval']) {
      await bed.redis.call('ACL', 'SETUSER', 'reelhaul', `-${right}`);
      await expect(bed.work({ config })).rejects.toThrow(RedisUnusableError);
      await expect(createReelhaul({ config })).rejects.toThrow(
        new RegExp(`^This Redis cannot be used: .* Its user needs .*${right}.*docs/redis.md lists`, 'i'),
      );
      await bed.redis.call('ACL', 'SETUSER', 'reelhaul', `+${right}`);
    }
  });

  (realRedis ? test : test.skip)('logs into the dashboard and sees every page of it', async () => {
    const redis = await launchRedis();
    cleanUps.push(() => redis.stop());
    const bed = await setUp({ redisUrl: redis.url });
    await allow(redis, bed.prefix);
    const { id } = await bed.enqueue('to be looked at', { idempotencyKey: 'one', delayMs: 3_600_000 });
    const api = await startApi(bed, { ...ACCOUNTS, REDIS_URL: asUser(redis.url) });
    cleanUps.push(() => api.close());
    const { get, post } = await visit(api, OPERATOR);
    const pages = [
      '',
      '?span=day',
      '/generations',
      '/generations?model=gen4',
      `/generations/${id}`,
      '/inbox',
    ];
    for (const page of [...pages, '/queues', '/queues/api/queues'])
      expect([page, (await get(`/dashboard${page}`)).status]).toEqual([page, 200]);
    expect((await post(`/dashboard/generations/${id}`, { action: 'cancel', rev: '0' })).status).toBe(303);
    expect((await post('/dashboard/resume', {})).status).toBe(303);
    expect((await post('/dashboard/logout', {})).status).toBe(303);
  });

  describe('on a Cluster', () => {
    let cluster: TestCluster;
    beforeAll(async () => {
      if (realRedis) cluster = await launchCluster();
    });
    afterAll(() => cluster?.stop());

    (realRedis ? test : test.skip)('runs everything as well', async () => {
      const receiver = await startReceiver();
      cleanUps.push(() => receiver.close());
      const bed = await setUp({ cluster: cluster.nodes });
      for (const master of cluster.masters) await allow(master, bed.prefix);
      await runAll(bed, 'redis://127.0.0.1', receiver.url);
      await until(() => receiver.received.length > 0, 'the notification');
    });
  });
});
