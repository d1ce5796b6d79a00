/** A short chaos run, and one that strikes each point where a kill hurts most; the long one is `npm run chaos`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { realRedis, SHORT_LIVED } from './support/testbed.js';

const program = fileURLToPath(new URL('../dist/test/chaos/main.js', import.meta.url));

async function chaos(...flags: string[]): Promise<{ code: number; out: string }> {
  const child = spawn(process.execPath, [...SHORT_LIVED, program, ...flags]);
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out };
}

(realRedis ? test.concurrent : test.concurrent.skip)(
  'workers and Redis killed at random: one bill each, nothing lost, every byte as the provider sent it',
  async () => {
    const { code, out } = await chaos(
      '--generations',
      '40',
      '--seed',
      '7',
      '--kills',
      '8',
      '--redis-restarts',
      '1',
    );
    expect(out).toContain('kept: one bill each, nothing lost');
    expect(code).toBe(0);
  },
);

(realRedis ? test.concurrent : test.concurrent.skip)(
  'killed at each named point of a submit: one bill each, nothing lost',
  async () => {
    const { code, out } = await chaos(
      ...['--generations', '30', '--kills', '10', '--redis-restarts', '0', '--point', 'each'],
    );
    expect(out).toContain('kept: one bill each, nothing lost');
    const [, struck = ''] = /points struck +(.*)/.exec(out) ?? [];
    expect(struck.split(', ').toSorted()).toEqual([
      'answered',
      'before-send',
      'handed-over',
      'saved',
      'sent',
    ]);
    expect(code).toBe(0);
  },
);
