/**
 * Set-ups that are broken, one after the other: each is named by the doctor at its right place, with what to do, an exit
 * code of 1 for an error, and without any secret. Whatever hangs does not hang the doctor.
 */
import { createServer as createHttpServer } from 'node:http';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { launchRedis, type LaunchedRedis } from '../../../src/cli/demo/redis-server.js';
import { consultDoctor, exitCodeOf, linesOf } from '../../../src/cli/doctor/command.js';
import { launchCluster } from '../../support/cluster.js';
import { runProcess, type CommandResult } from '../../support/command-line.js';
import { createTestbed, realRedis, type Testbed } from '../../support/testbed.js';
import { CREDENTIALS, startS3Server } from '../../storage/s3-server.js';

interface Finding {
  readonly level: string;
  readonly about: string;
  readonly message: string;
}

/** What the doctor said. @returns its findings by what they are about, and its exit code. */
function heard({ code, out, err }: CommandResult) {
  const findings = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Finding);
  const said = (about: string) => {
    const found = findings.filter((finding) => finding.about === about);
    return found.map(({ level, message }) => `${level}: ${message}`).join('\n');
  };
  return { code, out: out + err, findings, said };
}

/** The doctor in this process. */
async function consult(environment: Readonly<Record<string, string>>) {
  const consultation = await consultDoctor({ ...bed.environment, ...environment });
  return heard({ code: exitCodeOf(consultation), out: linesOf(consultation, true).join('\n'), err: '' });
}

/** The doctor as a process of its own: it comes to an end although something hangs. */
const consultProcess = async (
  environment: Readonly<Record<string, string>>,
  nodeArguments: readonly string[] = [],
) => heard(await runProcess(['doctor', '--json'], { ...bed.environment, ...environment }, nodeArguments));

let bed: Testbed;
beforeAll(async () => {
  bed = await createTestbed();
});
afterAll(() => bed.close());

const onRealRedis = realRedis ? describe : describe.skip;

async function withRedis(args: readonly string[], use: (redis: LaunchedRedis) => Promise<void>) {
  const redis = await launchRedis(args);
  try {
    await use(redis);
  } finally {
    await redis.stop();
  }
}

async function configured(redis: LaunchedRedis, ...settings: readonly [string, string][]): Promise<void> {
  const client = new Redis(redis.url);
  for (const [name, value] of settings) await client.config('SET', name, value);
  client.disconnect();
}

onRealRedis('of Redis', () => {
  test.concurrent(
    'that takes connections and answers nothing is said to hang, and the rest is looked at all the same',
    async () => {
      await withRedis([], async (redis) => {
        process.kill(redis.pid, 'SIGSTOP');
        try {
          const { code, said } = await consultProcess({ REDIS_URL: redis.url });
          expect(said('Redis')).toMatch(
            /^error: .*takes connections and has not answered for 12 s\. .*look at its process/,
          );
          expect(said('storage')).toMatch(/^ok/);
          expect(said('provider')).toMatch(/^ok/);
          expect(code).toBe(1);
        } finally {
          process.kill(redis.pid, 'SIGCONT');
        }
      });
    },
  );

  test.concurrent('that stops answering in the middle is said to, too', async () => {
    const info = 'redis_version:7.0.0\r\nrole:master\r\nloading:0';
    const mute = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        for (const [, name] of chunk.toString().matchAll(/\*\d+\r\n\$\d+\r\n([a-z]+)\r\n/gi)) {
          if (/^info$/i.test(name!)) socket.write(`$${info.length}\r\n${info}\r\n`);
          else if (!/^time$/i.test(name!)) socket.write('+OK\r\n');
        }
      });
    });
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = mute.address() as AddressInfo;
      const { code, said } = await consultProcess({ REDIS_URL: `redis://127.0.0.1:${port}` });
      expect(said('Redis')).toMatch(/^error: .*did not end within 15 s.*Look at its process/);
      expect(code).toBe(1);
    } finally {
      mute.close();
    }
  });

  test('with another password: which setting to look at, and neither password', async () => {
    await withRedis([], async (redis) => {
      await configured(redis, ['requirepass', 'the-right-password']);
      const url = redis.url.replace('redis://', 'redis://:a-wrong-password@');
      const { code, out, said } = await consult({ REDIS_URL: url });
      expect(said('Redis')).toMatch(/^error: .*WRONGPASS.*Check user and password in REDIS_URL/);
      expect(out).not.toMatch(/a-wrong-password|the-right-password/);
      expect(code).toBe(1);
    });
  });

  test('whose maxmemory is soon full, though little of it is used', async () => {
    await withRedis([], async (redis) => {
      await configured(redis, ['maxmemory', '30mb']);
      const { code, said } = await consult({ REDIS_URL: redis.url });
      expect(said('memory')).toMatch(
        /^warning: \d+ MB of 31 MB used, room for about \d{4} generations.*Raise maxmemory/,
      );
      expect(code).toBe(0);
      await configured(redis, ['maxmemory', '200mb']);
      expect((await consult({ REDIS_URL: redis.url })).said('memory')).toMatch(/^ok/);
    });
  });

  test('that is a replica', async () => {
    await withRedis([], async (master) => {
      await withRedis(['--replicaof', '127.0.0.1', String(master.port)], async (replica) => {
        const { code, said } = await consult({ REDIS_URL: replica.url });
        expect(said('Redis')).toMatch(/^error: .*a replica of 127\.0\.0\.1:\d+: set REDIS_URL to the master/);
        expect(code).toBe(1);
      });
    });
  });

  test('that cannot wait for its disk, though it is to', async () => {
    await withRedis(['--appendonly', 'no'], async (redis) => {
      const { code, said } = await consult({ REDIS_URL: redis.url, LEDGER_WAIT_AOF: 'true' });
      expect(said('ledger')).toMatch(/^error: LEDGER_WAIT_AOF=true expects.*Set LEDGER_WAIT_AOF=false/);
      expect(code).toBe(1);
    });
  });

  test('that lets our user not see its clock, or not look at it at all', async () => {
    await withRedis([], async (redis) => {
      const client = new Redis(redis.url);
      await client.call(
        'ACL',
        'SETUSER',
        'blind',
        'on',
        '>blind-password',
        '~*',
        '+@all',
        '-time',
        '-config',
      );
      await client.call('ACL', 'SETUSER', 'dumb', 'on', '>dumb-password', '~*', '+@all', '-get');
      client.disconnect();
      const as = (user: string) => redis.url.replace('redis://', `redis://${user}:${user}-password@`);
      const blind = await consult({ REDIS_URL: as('blind') });
      expect(blind.said('clock')).toMatch(/^warning: .*NOPERM.*Allow TIME/);
      expect(blind.said('persistence')).toMatch(/^ok/);
      expect(blind.code).toBe(0);
      const dumb = await consult({ REDIS_URL: as('dumb') });
      expect(dumb.said('Redis')).toMatch(/^error: .*NOPERM.*rights that docs\/redis\.md lists/);
      expect(dumb.code).toBe(1);
    });
  });

  test('of a Cluster in which one master is not like the others, by its address', async () => {
    const cluster = await launchCluster(['--appendonly', 'yes']);
    try {
      const [, odd] = cluster.masters;
      await configured(
        odd!,
        ['maxmemory-policy', 'allkeys-lru'],
        ['appendonly', 'no'],
        ['maxmemory', '30mb'],
      );
      const settings = { REDIS_URL: odd!.url, REDIS_CLUSTER_NODES: cluster.nodes };
      const { code, said } = await consult(settings);
      expect(said('eviction')).toMatch(new RegExp(`^error: 127.0.0.1:${odd!.port}: allkeys-lru`));
      expect(said('persistence')).toMatch(new RegExp(`^warning: 127.0.0.1:${odd!.port}: the append-only`));
      expect(said('memory')).toMatch(new RegExp(`^warning: 127.0.0.1:${odd!.port}: \\d+ MB of 31 MB`));
      expect(code).toBe(1);
      await configured(odd!, ['maxmemory-policy', 'noeviction']);
      expect((await consult(settings)).said('eviction')).toBe('ok: noeviction');
    } finally {
      await cluster.stop();
    }
  });
});

test('a clock that is ahead of that of Redis: worth a warning, or too far for a worker', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'reelhaul-clock-'));
  const ahead = join(folder, 'ahead.mjs');
  await writeFile(ahead, 'const now = Date.now; Date.now = () => now() + Number(process.env.AHEAD_MS);');
  const { said } = await consultProcess({ AHEAD_MS: '3000' }, ['--import', ahead]);
  expect(said('clock')).toMatch(/^warning: -[23]\d{3} ms beside that of Redis.*NTP/);
  const far = await consultProcess({ AHEAD_MS: '60000' }, ['--import', ahead]);
  expect(far.said('clock')).toMatch(
    /^error: the clock of this machine is (59|60)\.\d s ahead of .*takes no jobs/,
  );
  expect((await consult({})).said('clock')).toMatch(/^ok/);
  await rm(folder, { recursive: true });
});

describe('of the storage', () => {
  test('a bucket that is not there, and credentials that are wrong, which are not shown', async () => {
    const s3 = await startS3Server();
    try {
      const environment = {
        AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
        AWS_SECRET_ACCESS_KEY: 'a-wrong-secret-key-0123456789',
        STORAGE_URL: `s3://no-such-bucket?endpoint=${s3.endpoint}&forcePathStyle=true`,
      };
      const wrong = await consultProcess(environment);
      expect(wrong.said('storage')).toMatch(/^error: .*Check STORAGE_URL/);
      expect(wrong.out).not.toContain('a-wrong-secret-key');
      const missing = await consultProcess({
        ...environment,
        AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
      });
      expect(missing.said('storage')).toMatch(/^error: .*bucket.*Check STORAGE_URL/i);
      expect(missing.code).toBe(1);
    } finally {
      await s3.close();
    }
  });

  test.each([
    'ftp://reels:a-storage-password@files.example.com/reels',
    's3://reels?endpoint=https://reels:a-storage-password@files.example.com',
    's3://reels?secretAccessKey=a-storage-password',
  ])('%s is refused in one line, without its password', async (url) => {
    const { code, out, said } = await consult({ STORAGE_URL: url });
    expect(said('STORAGE_URL')).toMatch(/^error: .*expected.*Set it so/);
    expect(out).not.toContain('a-storage-password');
    expect(code).toBe(1);
  });
});

describe('of the provider', () => {
  let silent: Server;
  let url: string;
  beforeAll(async () => {
    silent = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  });
  afterAll(() => new Promise((resolve) => silent.close(resolve)));

  test.concurrent(
    'one that answers nothing, to the call and about the balance, however patient polls are',
    async () => {
      const { code, out, said } = await consultProcess({
        COMETAPI_BASE_URL: url,
        COMETAPI_QUOTA_URL: url,
        COMETAPI_QUOTA_KEY: 'quota-key-0123456789',
        POLL_TIMEOUT_MS: '3600000',
      });
      expect(said('provider')).toMatch(/^warning: .*within 15000 ms\. Check COMETAPI_BASE_URL/);
      expect(said('balance')).toMatch(/^warning: .*no answer within 10 s\. Check COMETAPI_QUOTA_KEY/);
      expect(out).not.toContain('quota-key-0123456789');
      expect(code).toBe(0);
    },
  );
});

describe('of the way to the provider', () => {
  test.each([
    [404, 'text/html', '<html>Not Found</html>'],
    [404, 'application/json', '{"error":{"message":"Invalid URL (POST /v1/runway/feed)","code":""}}'],
    [405, 'text/html', '<html>Not Allowed</html>'],
    [407, 'text/plain', 'Proxy Authentication Required'],
    [301, 'text/html', ''],
    [403, 'text/html', '<html>Attention Required!</html>'],
    [200, 'text/html', '<html>Sign in</html>'],
  ])('something in front of the API that answers %s %s is an error with what to do', async (...answer) => {
    const [status, type, body] = answer;
    const front = createHttpServer((_request, response) => {
      response.writeHead(status, { 'Content-Type': type, Location: 'https://login.example.com/' }).end(body);
    });
    await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = front.address() as AddressInfo;
      const { code, said } = await consult({ COMETAPI_BASE_URL: `http://127.0.0.1:${port}` });
      expect(said('provider')).toMatch(/^error: .*(Set|Check) .*COMETAPI_BASE_URL/);
      expect(code).toBe(1);
    } finally {
      front.close();
    }
  });
});

describe('of PUBLIC_URL', () => {
  test.each([
    ['https://localhost', /^error: .*Set PUBLIC_URL/],
    ['https://reels', /^error: .*Set PUBLIC_URL/],
    ['https://reels.local', /^error: .*Set PUBLIC_URL/],
    ['https://127.0.0.1', /^error: .*Set PUBLIC_URL/],
    ['https://10.1.2.3:8443', /^error: .*Set PUBLIC_URL/],
    ['https://100.64.1.1', /^error: .*Set PUBLIC_URL/],
    ['https://0.0.0.0', /^error: .*Set PUBLIC_URL/],
    ['https://[::1]', /^error: .*Set PUBLIC_URL/],
    ['https://[fd00::5]', /^error: .*Set PUBLIC_URL/],
    ['http://9.9.9.9', /^warning: .*not https.*Set PUBLIC_URL/],
  ])('%s', async (url, expected) => {
    const { said } = await consult({
      PUBLIC_URL: url,
      CALLBACK_SECRET: 'a secret for the tests',
      // Not asked without a key; a provider on this machine would reach this machine.
      COMETAPI_BASE_URL: 'https://api.cometapi.com',
      COMETAPI_KEY: '',
    });
    expect(said('callbacks')).toMatch(expected);
  });
});

test('a loopback PUBLIC_URL beside a provider on this machine is none', async () => {
  const server = createHttpServer((_request, response) => void response.end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const settings = { PUBLIC_URL: `http://127.0.0.1:${port}`, CALLBACK_SECRET: 'a secret for the tests' };
    const { code, said } = await consult(settings);
    expect(said('callbacks')).toMatch(/^ok/);
    expect(code).toBe(0);
  } finally {
    server.close();
  }
});

test.each([
  [{ ARCHIVE_ALLOW_HOSTS: '' }, /^error: 127\.0\.0\.1 is this machine.*Set ARCHIVE_ALLOW_HOSTS=127/],
  [
    { ARCHIVE_ALLOW_HOSTS: '', ARCHIVE_ONLY_ALLOWED: 'true' },
    /^error: .*no video can be fetched.*Set ARCHIVE/,
  ],
  [{ ARCHIVE_ALLOW_HOSTS: '127.0.0.0/8' }, /^$/],
])('hosts of assets that nothing lets through are an error: %j', async (settings, expected) => {
  expect((await consult(settings)).said('asset hosts')).toMatch(expected);
});

test('a misspelt setting is a warning with what was meant', async () => {
  const { code, said } = await consult({ MAX_IN_FLIGTH: '5', BUDGET_PER_DAYS: '10' });
  expect(said('MAX_IN_FLIGTH')).toBe('warning: has no effect. Did you mean MAX_IN_FLIGHT?');
  expect(said('BUDGET_PER_DAYS')).toBe('warning: has no effect. Did you mean BUDGET_PER_DAY?');
  expect(code).toBe(0);
});

test('settings that cannot be read are findings, each by its name and without what is secret', async () => {
  const { code, out, findings, said } = await consult({
    SUBMIT_TIMEOUT_MS: 'soon',
    REDIS_URL: 'http://reelhaul:a-redis-password@redis',
    COMETAPI_BASE_URL: 'https://reelhaul:a-base-password@api.example.com',
    PUBLIC_URL: 'reels.example.com',
    CALLBACK_SECRET: 'a-short-one',
    COMETAPI_KEY: 'a key with spaces',
    NOTIFY_SECRET: 'whsec_not-base64-at-all',
    DASHBOARD_USER: 'admin',
    DASHBOARD_PASSWORD: 'too-short',
  });
  for (const name of ['SUBMIT_TIMEOUT_MS', 'REDIS_URL', 'COMETAPI_BASE_URL', 'COMETAPI_KEY', 'NOTIFY_SECRET'])
    expect(said(name)).toMatch(/^error: expected .*\. Set it so\.$/);
  expect(said('PUBLIC_URL')).toBe(
    'error: expected a URL that starts with https:// or http://, got "reels.example.com". Set it so.',
  );
  expect(findings.every(({ message }) => !message.includes('\n'))).toBe(true);
  expect(out).not.toMatch(/a-redis-password|a-base-password|a-short-one|a key with|not-base64|too-short/);
  expect(code).toBe(1);
});
