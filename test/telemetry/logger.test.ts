/** What a log line may hold, whatever error, address or spelling brings a secret along. */
import { expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { create } from 'axios';
import { readConfig, secretsIn } from '../../src/config/config.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { SECRET } from '../support/receiver.js';
import { redisUrl } from '../support/testbed.js';

const PROMPT = 'a very private prompt';
const LINK = 'https://cdn.example.com/reel.mp4?Expires=1&Signature=sIgNaTuRe';

/** One line of a log that knows these secrets. */
function logged(write: (log: ReturnType<typeof createLogger>) => void, secrets: readonly string[] = []) {
  const lines: string[] = [];
  write(createLogger({ level: 'trace', secrets, write: (line) => lines.push(line) }));
  return lines.join('');
}

test('an error of Redis is told without what its command was about', async () => {
  const redis = new Redis(redisUrl());
  await redis.set('{log}:text', 'no hash', 'PX', 60_000);
  const error: unknown = await redis
    .hset('{log}:text', 'request', `${PROMPT} ${LINK}`)
    .catch((e: unknown) => e);
  const transaction: unknown = await redis
    .multi()
    .call('getset', PROMPT)
    .set('{log}:text', PROMPT)
    .exec()
    .catch((e: unknown) => e);
  await redis.del('{log}:text');
  redis.disconnect();
  // Otherwise this would show nothing.
  expect(JSON.stringify(error)).toContain(PROMPT);
  expect(JSON.stringify(transaction)).toContain(PROMPT);
  const line = logged((log) => {
    log.warn({ err: error }, 'it failed');
    log.warn({ err: transaction }, 'it failed as well');
  });
  expect(line).not.toMatch(/private prompt|sIgNaTuRe/);
  expect(JSON.parse(line.split('\n')[0]!)).toMatchObject({
    err: { message: expect.stringContaining('WRONGTYPE'), command: 'hset' },
    msg: 'it failed',
  });
});

test('an error of a call is told without its headers, its body and what signs its address', async () => {
  const error: unknown = await create()
    .post(
      'http://127.0.0.1:9/upload?X-Amz-Signature=sIgNaTuRe',
      { prompt: PROMPT },
      {
        adapter: 'http',
        headers: { authorization: 'Bearer a-key-that-nobody-told-the-log', cookie: 'session=s1d' },
      },
    )
    .catch((e: unknown) => e);
  const line = logged((log) => {
    log.error({ err: error }, 'the call failed');
    log.error({ err: new Error(`GET ${LINK} failed`, { cause: error }) }, 'so did this');
  });
  expect(line).not.toMatch(/private prompt|sIgNaTuRe|that-nobody-told|s1d/);
  expect(line).toContain('ECONNREFUSED');
  expect(line).toContain('https://cdn.example.com/reel.mp4?[redacted]');
});

test.each([
  'redis://reels:pass-word-0123@redis:6379/0',
  'rediss://:pass-word-0123@redis:6379',
  'https://reels:pass-word-0123@s3.example.com/reels',
  'https://query.cometapi.com/user/quota?key=pass-word-0123',
  's3://reels?endpoint=https://reels:pass-word-0123@s3.example.com',
])('%s is told without what gets one in', (address) => {
  const line = logged((log) => log.info({ address }, `cannot use ${address}`));
  expect(line).not.toContain('pass-word-0123');
  expect(() => JSON.parse(line) as unknown).not.toThrow();
});

const ENVIRONMENT = {
  COMETAPI_KEY: 'comet-key-(0123456789)',
  COMETAPI_QUOTA_KEY: "quota-key-'0123456789'",
  REDIS_URL: 'redis://reels:redis%20pass%2Fword@127.0.0.1:6379',
  REDIS_SENTINEL_PASSWORD: 'sentinel "password"',
  CALLBACK_SECRET: 'callback secret & more',
  NOTIFY_SECRET: SECRET,
  API_TOKENS: 'first-token-0123456789:acme:ro, second-token-0123456789',
  DASHBOARD_USER: 'admin',
  DASHBOARD_PASSWORD: 'dashboard-password',
  DASHBOARD_VIEWER_USER: 'guest',
  DASHBOARD_VIEWER_PASSWORD: 'viewer-password',
};

test.each([
  ['the key', ENVIRONMENT.COMETAPI_KEY],
  ['the quota key', ENVIRONMENT.COMETAPI_QUOTA_KEY],
  ['the password of Redis', 'redis pass/word'],
  ['the password of the Sentinels', ENVIRONMENT.REDIS_SENTINEL_PASSWORD],
  ['the secret of callbacks', ENVIRONMENT.CALLBACK_SECRET],
  ['the secret of notifications', SECRET],
  ['what is signed with', SECRET.replace('whsec_', '')],
  ['the token of a tenant', 'first-token-0123456789'],
  ['the token of all', 'second-token-0123456789'],
  ['the password of the dashboard', ENVIRONMENT.DASHBOARD_PASSWORD],
  ['that of its viewers', ENVIRONMENT.DASHBOARD_VIEWER_PASSWORD],
  ['a login of the dashboard', Buffer.from('admin:dashboard-password').toString('base64')],
  ['the secret of the bucket', 'aws-secret/0123456789'],
])('%s is in no line, however it is spelt', (_, secret) => {
  const secrets = secretsIn(readConfig(ENVIRONMENT), {
    ...ENVIRONMENT,
    AWS_SECRET_ACCESS_KEY: 'aws-secret/0123456789',
  });
  const spellings = [
    secret,
    encodeURIComponent(secret),
    new URLSearchParams([['key', secret]]).toString().slice(4),
  ];
  for (const spelling of spellings) {
    const line = logged((log) => {
      log.info({ it: spelling, deep: { it: [`before${spelling}after`] } }, `it is ${spelling}.`);
      log.error({ err: new Error(`it is ${spelling}`) });
    }, secrets);
    const plain = JSON.stringify(spelling).slice(1, -1);
    expect([spelling, line.includes(spelling) || line.includes(plain)]).toEqual([spelling, false]);
  }
});
