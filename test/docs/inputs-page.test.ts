/** The examples of docs/inputs.md work as they stand. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { POSTER_PNG } from '../../src/simulator/fixtures.js';
import { startApi } from '../support/api.js';
import { createTestbed } from '../support/testbed.js';

const page = fileURLToPath(new URL('../../docs/inputs.md', import.meta.url));
const library = new URL('../../dist/src/index.js', import.meta.url).href;

test('an upload and a film of three clips', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'reelhaul-test-'));
  const boat = join(folder, 'boat.png');
  await writeFile(boat, POSTER_PNG);
  const port = String(await freePort());
  const bed = await createTestbed({
    environment: { PUBLIC_URL: `http://127.0.0.1:${port}`, CALLBACK_SECRET: 'a secret for the tests' },
  });
  const api = await startApi(bed, { PORT: port });
  try {
    const examples = [...(await readFile(page, 'utf8')).matchAll(/^```js\n(.*?)^```/gms)];
    expect(examples).toHaveLength(2);
    const program = [
      `import { createReelhaul } from '${library}';`,
      'const reelhaul = await createReelhaul();',
      ...examples.map(([, code = '']) => `{ ${code.replace('./boat.png', boat)} }`),
      'await reelhaul.close();',
    ];
    const args = ['--input-type=module', '-e', program.join('\n')];
    await promisify(execFile)(process.execPath, args, { env: { ...process.env, ...bed.environment } });
    await bed.work();
    const { generations } = await bed.reelhaul.list();
    expect(generations).toHaveLength(4);
    for (const { id } of generations) expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  } finally {
    await api.close();
    await bed.close();
    await rm(folder, { recursive: true });
  }
});
