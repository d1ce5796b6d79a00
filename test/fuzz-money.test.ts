/** Everything that apps, operators, the provider and the machine do, at random; the long run is `npm run fuzz:money`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { realRedis, SHORT_LIVED } from './support/testbed.js';

const program = fileURLToPath(new URL('../dist/test/fuzz-money/main.js', import.meta.url));

(realRedis ? test : test.skip)(
  'decisions, callbacks and kills at random: bills, slots and indexes agree with the books of the provider',
  async () => {
    const size = [
      '--generations',
      '40',
      '--workers',
      '2',
      '--kills',
      '3',
      '--freezes',
      '1',
      '--redis-kills',
      '1',
    ];
    const child = spawn(process.execPath, [
      ...SHORT_LIVED,
      program,
      '--seed',
      '7',
      '--time-limit-s',
      '170',
      ...size,
    ]);
    let out = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    expect(out).toContain('kept: bills, slots and indexes agree with the books');
    expect(code).toBe(0);
  },
);
