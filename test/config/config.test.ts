import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { expect, test } from '@jest/globals';
import { misspeltSettings, readConfig, VARIABLES } from '../../src/config/config.js';
import { ConfigError } from '../../src/errors.js';
import { rememberForMs } from '../../src/store/submit-ledger.js';

const example = readFileSync(fileURLToPath(new URL('../../.env.example', import.meta.url)), 'utf8');

function problemsWith(environment: Record<string, string>): Record<string, string> {
  try {
    readConfig(environment);
  } catch (error) {
    if (error instanceof ConfigError)
      return Object.fromEntries(error.problems.map((p) => [p.path, p.message]));
    throw error;
  }
  return {};
}

test('.env.example lists exactly the variables that are read', () => {
  expect(Object.keys(parseEnv(example))).toEqual(expect.arrayContaining([...VARIABLES]));
  expect(Object.keys(parseEnv(example))).toHaveLength(VARIABLES.length);
});

test('.env.example shows the defaults', () => {
  expect({ ...readConfig({}) }).toEqual({ ...readConfig(parseEnv(example)) });
});

test('each variable of .env.example has a line of why above it', () => {
  const lines = example.split('\n');
  const bare = lines.filter((line, i) => /^[A-Z]/.test(line) && !(lines[i - 1] ?? '').startsWith('# '));
  expect(bare).toEqual([]);
});

test('every problem is named at once, with what was expected and what was got', () => {
  const problems = problemsWith({
    SUBMIT_CONCURRENCY: 'many',
    POLL_TIMEOUT_MS: '-5',
    REDIS_URL: 'http://example.com',
    LOG_LEVEL: 'loud',
    REDIS_PREFIX: 'plain',
    ARCHIVE_ONLY_ALLOWED: 'yes',
    PORT: '70000',
  });
  expect(Object.keys(problems)).toHaveLength(7);
  expect(problems['SUBMIT_CONCURRENCY']).toMatch(/expected a whole number.*got "many"/);
  expect(problems['POLL_TIMEOUT_MS']).toMatch(/expected .* from 100 .*got -5/);
  expect(problems['LOG_LEVEL']).toMatch(/expected one of fatal.*got "loud"/);
});

test('a password in a wrong REDIS_URL is not repeated', () => {
  expect(JSON.stringify(problemsWith({ REDIS_URL: 'postgres://me:hunter22@host/1' }))).not.toContain(
    'hunter22',
  );
});

test.each(['https://api.cometapi.com/v1', 'https://api.cometapi.com/runway/', 'http://127.0.0.1:3000/x/y'])(
  'a base address with a path is refused, and the right form is named: %s',
  (url) => {
    expect(problemsWith({ COMETAPI_BASE_URL: url })['COMETAPI_BASE_URL']).toMatch(
      /scheme, host and port alone, such as https:\/\/api\.cometapi\.com, got "http/,
    );
  },
);

test('slashes and blanks around a value are left out, but not of passwords', () => {
  const config = readConfig({
    COMETAPI_BASE_URL: ' https://api.example.com// ',
    COMETAPI_KEY: 'sk-0123456789\n',
    REDIS_URL: 'redis://127.0.0.1:6379 ',
    PUBLIC_URL: 'https://reels.example.com/base ',
    DASHBOARD_USER: 'admin ',
    DASHBOARD_PASSWORD: ' twelve characters ',
    CALLBACK_SECRET: 'a secret with blanks ',
    SUBMIT_CONCURRENCY: ' 7',
  });
  expect(config).toMatchObject({
    COMETAPI_BASE_URL: 'https://api.example.com',
    COMETAPI_KEY: 'sk-0123456789',
    REDIS_URL: 'redis://127.0.0.1:6379',
    PUBLIC_URL: 'https://reels.example.com/base',
    DASHBOARD_USER: 'admin',
    DASHBOARD_PASSWORD: ' twelve characters ',
    CALLBACK_SECRET: ['a secret with blanks'],
    SUBMIT_CONCURRENCY: 7,
  });
});

test('what cannot be read hides no contradiction, and the other way round', () => {
  const problems = problemsWith({
    DASHBOARD_USER: 'admin',
    DASHBOARD_PASSWORD: 'short',
    API_TOKENS: 'tiny',
    STORAGE_URL: 's3://reels?colour=red',
    PUBLIC_URL: 'https://reels.example.com',
    POLL_MAX_INTERVAL_MS: '1000',
    SUBMIT_CONCURRENCY: 'many',
  });
  expect(Object.keys(problems).sort()).toEqual([
    'API_TOKENS',
    'CALLBACK_SECRET',
    'DASHBOARD_PASSWORD',
    'POLL_MAX_INTERVAL_MS',
    'STORAGE_URL',
    'SUBMIT_CONCURRENCY',
  ]);
  expect(problems['STORAGE_URL']).toMatch(/^STORAGE_URL colour: expected one of region,/);
});

test('a rule about a setting that cannot be read is not asked', () => {
  expect(Object.keys(problemsWith({ BUDGET_PER_DAY: '5', PRICES: 'free' }))).toEqual(['PRICES']);
});

test.each(['ftp://files.example.com/reels', 'file:', 'file:///a?b', 's3://', 's3://reels?sse=none'])(
  'a storage address that nothing can open is refused at once: %s',
  (url) => {
    expect(problemsWith({ STORAGE_URL: url })['STORAGE_URL']).toMatch(/expected/);
  },
);

test('a callback secret can be two, and each is long enough', () => {
  const [before, after] = ['the secret of before', 'the secret of today'];
  expect(readConfig({ CALLBACK_SECRET: `${after}, ${before}` }).CALLBACK_SECRET).toEqual([after, before]);
  expect(problemsWith({ CALLBACK_SECRET: `${after},short` })['CALLBACK_SECRET']).toMatch(/entry 2/);
});

test('a resubmit that could meet its first call under way is refused', () => {
  const both = { UNCONFIRMED_WAIT_MS: '30000', SUBMIT_TIMEOUT_MS: '90000' };
  expect(problemsWith({ ...both, UNCONFIRMED_POLICY: 'resubmit' })['UNCONFIRMED_WAIT_MS']).toMatch(
    /at least SUBMIT_TIMEOUT_MS \(90000\), got 30000/,
  );
  expect(problemsWith(both)).toEqual({});
});

test('posts are remembered longer than their answer can take', () => {
  expect(rememberForMs({ SUBMIT_TIMEOUT_MS: 600_000 })).toBeGreaterThanOrEqual(660_000);
});

test.each([
  ['MAX_IN_FLIGTH', 'MAX_IN_FLIGHT'],
  ['BUDGET_PER_DAYS', 'BUDGET_PER_DAY'],
  ['COMETAPI_API_KEY', 'COMETAPI_KEY'],
  ['REDIS_URI', 'REDIS_URL'],
  ['API_TOKEN', 'API_TOKENS'],
  ['SUBMIT_CONCURENCY', 'SUBMIT_CONCURRENCY'],
])('%s is told to have no effect, and to be meant for %s', (name, meant) => {
  expect(misspeltSettings({ [name]: '1' })).toEqual([
    { path: name, message: `has no effect. Did you mean ${meant}?` },
  ]);
});

test('names of other programs are let be', () => {
  const others = [
    'PATH',
    'HOME',
    'HOST',
    'NODE_ENV',
    'AWS_REGION',
    'REDIS_PORT',
    'OTEL_SERVICE_NAME',
    'LOGNAME',
  ];
  expect(misspeltSettings(Object.fromEntries([...others, ...VARIABLES].map((name) => [name, '1'])))).toEqual(
    [],
  );
});

test('settings that contradict each other are refused', () => {
  expect(problemsWith({ PUBLIC_URL: 'https://reels.example.com' })).toHaveProperty('CALLBACK_SECRET');
  expect(problemsWith({ POLL_MAX_INTERVAL_MS: '1000' })).toHaveProperty('POLL_MAX_INTERVAL_MS');
  expect(problemsWith({ RETENTION_MS: '5000' })).toHaveProperty('RETENTION_MS');
});

test('an empty value counts as not set, and the result cannot be changed', () => {
  const config = readConfig({ PORT: '', LOG_LEVEL: '' });
  expect(config.PORT).toBe(3000);
  expect(Object.isFrozen(config)).toBe(true);
});

test('a WORKER_PORT that Kubernetes set for a Service is told as such', () => {
  expect(problemsWith({ WORKER_PORT: 'tcp://10.0.0.7:9100' })['WORKER_PORT']).toMatch(
    /got "tcp:.*Service named "worker"\. Set enableServiceLinks: false/,
  );
  expect(problemsWith({ WORKER_PORT: '70000' })['WORKER_PORT']).toMatch(/^expected .*from 0 to 65535/);
});

test('a setting that was removed is refused, and the message says what to do instead', () => {
  expect(() => readConfig({ REDIS_SHARDS: '4' })).toThrow(/REDIS_SHARDS.*one installation/s);
  expect(() => readConfig({ REDIS_SHARDS: '' })).not.toThrow();
});

test('https inputs are checked by default, but beside a provider on this machine', () => {
  const read = (environment: Record<string, string>) => readConfig(environment).INPUT_URL_CHECK;
  expect(read({})).toBe(true);
  expect(read({ COMETAPI_BASE_URL: 'http://127.0.0.1:8787' })).toBe(false);
  expect(read({ COMETAPI_BASE_URL: 'http://127.0.0.1:8787', INPUT_URL_CHECK: 'true' })).toBe(true);
});
