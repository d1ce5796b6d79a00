/** A short chaos run, in which each point where a kill hurts most is struck as well; the long one is `npm run chaos`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { realRedis, SHORT_LIVED } from './support/testbed.js';

const program = fileURLToPath(new URL('../dist/test/chaos/main.js', import.meta.url));
const FLAGS = '--generations 30 --seed 7 --kills 9 --redis-restarts 1 --points-first'.split(' ');

(realRedis ? test : test.skip)(
  'workers killed at each named point of a submit and at random, Redis killed: one bill each, nothing lost, every byte as the provider sent it',
  async () => {
    const child = spawn(process.execPath, [...SHORT_LIVED, program, ...FLAGS]);
    let out = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    expect(out).toContain('kept: one bill each, nothing lost');
    const [, struck = ''] = /points struck +(.*)/.exec(out) ?? [];
    expect(struck.split(', ').toSorted().join(' ')).toBe('answered before-send handed-over saved sent');
    expect(code).toBe(0);
  },
);
