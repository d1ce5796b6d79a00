/** A short chaos run, and one for each point where a kill hurts most; the long one is `npm run chaos`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { realRedis } from './support/testbed.js';

const program = fileURLToPath(new URL('../dist/test/chaos/main.js', import.meta.url));

async function chaos(...flags: string[]): Promise<{ code: number; out: string }> {
  const child = spawn(process.execPath, [program, ...flags]);
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out };
}

(realRedis ? test : test.skip)(
  'workers and Redis killed at random: one bill each, nothing lost, every byte as the provider sent it',
  async () => {
    const { code, out } = await chaos(
      '--generations',
      '60',
      '--seed',
      '7',
      '--kills',
      '12',
      '--redis-restarts',
      '1',
    );
    expect(out).toContain('kept: one bill each, nothing lost');
    expect(code).toBe(0);
  },
);

(realRedis ? test.concurrent : test.concurrent.skip).each([
  'before-send',
  'sent',
  'answered',
  'saved',
  'handed-over',
])('killed at %s: one bill each, nothing lost', async (point) => {
  const { code, out } = await chaos(
    '--generations',
    '12',
    '--kills',
    '3',
    '--redis-restarts',
    '0',
    '--point',
    point,
  );
  expect(out).toContain('kept: one bill each, nothing lost');
  expect(out).toMatch(/0 from outside, [1-9]\d* at/);
  expect(code).toBe(0);
});
