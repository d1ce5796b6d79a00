import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { expect, test } from '@jest/globals';
import { readConfig, VARIABLES } from '../../src/config/config.js';
import { ConfigError } from '../../src/errors.js';

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
    CALLBACK_SECRET: ' a secret with blanks ',
    SUBMIT_CONCURRENCY: ' 7',
  });
  expect(config).toMatchObject({
    COMETAPI_BASE_URL: 'https://api.example.com',
    COMETAPI_KEY: 'sk-0123456789',
    REDIS_URL: 'redis://127.0.0.1:6379',
    PUBLIC_URL: 'https://reels.example.com/base',
    CALLBACK_SECRET: ' a secret with blanks ',
    SUBMIT_CONCURRENCY: 7,
  });
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
