/** The packed package, as an app would install it: compiled against with strict TypeScript, run as ESM and as CJS. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createTestbed, type Testbed } from './support/testbed.js';

const root = fileURLToPath(new URL('..', import.meta.url));
let bed: Testbed;
let app: string;

const APP = `
import { createReelhaul, InvalidInputError, type EnqueueOptions, type Generation } from 'reelhaul';
const options: EnqueueOptions = { idempotencyKey: 'packed', metadata: { order: 1 } };
async function main(): Promise<void> {
  const reelhaul = await createReelhaul({ redis: process.env['REDIS_URL'] });
  await reelhaul.enqueue({ prompt: '' }).catch((error: unknown) => {
    if (!(error instanceof InvalidInputError)) throw error;
  });
  const { id } = await reelhaul.enqueue({ prompt: 'packed', image: 'https://example.com/still.png' }, options);
  const generation: Generation = await reelhaul.waitFor(id);
  console.log(generation.state, generation.assets?.video.contentType);
  await reelhaul.close();
}
void main();
`;

function must(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

beforeAll(async () => {
  bed = await createTestbed();
  await bed.work();
  app = await mkdtemp(join(tmpdir(), 'reelhaul-app-'));
  const modules = join(app, 'node_modules');
  await mkdir(join(modules, 'reelhaul'), { recursive: true });
  const packed = must(
    'npm',
    ['pack', '--ignore-scripts', '--silent', '--pack-destination', app],
    root,
  ).trim();
  must('tar', ['-xzf', join(app, packed), '-C', join(modules, 'reelhaul'), '--strip-components=1'], app);
  // What npm would install beside it stands in this repository already.
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== 'reelhaul' && name !== '.bin')
      await symlink(join(root, 'node_modules', name), join(modules, name));
  }
  for (const [folder, type] of [
    ['esm', 'module'],
    ['cjs', 'commonjs'],
  ] as const) {
    await mkdir(join(app, folder));
    await writeFile(join(app, folder, 'package.json'), JSON.stringify({ type }));
    await writeFile(join(app, folder, 'app.ts'), APP);
    const compilerOptions = {
      ...{
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: true,
      },
      ...{ module: 'nodenext', target: 'es2022', types: ['node'] },
    };
    await writeFile(join(app, folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  }
});
afterAll(async () => {
  await bed.close();
  await rm(app, { recursive: true });
});

test.each(['esm', 'cjs'])('an app in TypeScript enqueues and waits: %s', async (folder) => {
  must(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder], app);
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, [join(app, folder, 'app.js')], {
    env: { PATH, HOME, ...bed.environment },
  });
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  await once(child, 'close');
  expect(out.trim()).toBe('succeeded video/mp4');
});

test('a producer loads no worker, no provider and no storage', async () => {
  const script = "import('reelhaul')";
  const { PATH = '', HOME = '' } = process.env;
  const { stderr } = spawnSync(process.execPath, ['-e', script], {
    cwd: app,
    env: { PATH, HOME, NODE_DEBUG: 'esm' },
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  expect(stderr).toContain('reelhaul/dist/src/index.js');
  for (const heavy of [
    '/dist/workers/',
    '/dist/src/provider/client.js',
    '/dist/src/storage/s3.js',
    '/axios/',
  ]) {
    expect(stderr).not.toContain(heavy);
  }
});
