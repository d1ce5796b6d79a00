/** Everything that bills depend on, at random: a short run of `npm run fuzz:money`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { realRedis } from './support/testbed.js';

const program = fileURLToPath(new URL('../dist/test/fuzz-money/main.js', import.meta.url));
const ROUNDS = [
  '--generations',
  '30',
  '--workers',
  '2',
  '--kills',
  '4',
  '--freezes',
  '3',
  '--redis-kills',
  '1',
];

(realRedis ? test : test.skip)(
  'workers and Redis killed and frozen, random decisions and callbacks: bills, slots and indexes agree with the books',
  async () => {
    const child = spawn(process.execPath, [program, ...ROUNDS]);
    let out = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    expect(out).toContain('kept: bills, slots and indexes agree with the books');
    expect(code).toBe(0);
  },
);
