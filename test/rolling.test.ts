/** A short rolling deploy; the long one is `npm run rolling-deploy`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from '@jest/globals';
import { needs } from './support/needs.js';
import { findCommit } from './rolling/old-version.js';

const program = fileURLToPath(new URL('../dist/test/rolling/main.js', import.meta.url));

// A clone without history has no older version to roll from.
needs('the history of git', findCommit() !== null).test(
  'old and new workers side by side, replaced one by one under load and back again: nothing lost, nothing twice',
  async () => {
    const child = spawn(process.execPath, [program, '--generations', '30', '--workers', '2', '--rolls', '2']);
    let out = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    expect(out).toContain('kept: nothing lost, nothing twice');
    expect(code).toBe(0);
  },
);
