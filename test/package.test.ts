/** The packed package, as an app would install it: compiled against with strict TypeScript, run as ESM and as CJS. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createTestbed, type Testbed } from './support/testbed.js';

const root = fileURLToPath(new URL('..', import.meta.url));
/** An app installs these only when it needs them. */
const ABSENT = new Set([
  ...['reelhaul', '.bin', 'hono', '@hono', '@bull-board', '@aws-sdk', '@opentelemetry', 'js-redis-server'],
]);
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
    if (!ABSENT.has(name)) await symlink(join(root, 'node_modules', name), join(modules, name));
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

test.each([
  ['node16', 'node16', 'cjs'],
  ['preserve', 'bundler', 'esm'],
  ['preserve', 'bundler', 'cjs'],
])('an app compiles with module %s and moduleResolution %s: %s', (module, resolution, folder) => {
  const flags = ['--noEmit', '--module', module, '--moduleResolution', resolution];
  must(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder, ...flags], app);
});

test('TypeScript with node10 finds a CommonJS entry and its types, which know nothing of exports', () => {
  const { main, types } = JSON.parse(
    readFileSync(join(app, 'node_modules/reelhaul/package.json'), 'utf8'),
  ) as Record<string, string>;
  for (const file of [main!, types!]) expect(existsSync(join(app, 'node_modules/reelhaul', file))).toBe(true);
});

test('Jest requires it without a flag and without a transform', async () => {
  await writeFile(
    join(app, 'cjs', 'app.test.js'),
    `const { createReelhaul, InvalidInputError } = require('reelhaul');
    test('refuses', async () => {
      const reelhaul = await createReelhaul({ redis: process.env.REDIS_URL });
      await expect(reelhaul.enqueue({ prompt: '' })).rejects.toBeInstanceOf(InvalidInputError);
      await reelhaul.close();
    });`,
  );
  const { PATH = '', HOME = '' } = process.env;
  const { stderr, status } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/jest/bin/jest.js'),
      '--rootDir',
      join(app, 'cjs'),
      '--config',
      '{"transform":{}}',
    ],
    { cwd: app, env: { PATH, HOME, ...bed.environment }, encoding: 'utf8' },
  );
  expect([status, stderr]).toEqual([0, expect.stringContaining('1 passed')]);
});

test.each([
  ['serve', {}, 'hono @hono/node-server @bull-board/api @bull-board/hono @bull-board/ui'],
  ['worker', { WORKER_PORT: '9' }, 'hono @hono/node-server'],
  [
    'worker',
    { OTEL_TRACES_EXPORTER: 'console' },
    '@opentelemetry/api @opentelemetry/exporter-trace-otlp-http @opentelemetry/resources @opentelemetry/sdk-trace-node',
  ],
  [
    'worker',
    { STORAGE_URL: 's3://reels?region=eu-central-1' },
    '@aws-sdk/client-s3 @aws-sdk/lib-storage @aws-sdk/s3-request-presigner',
  ],
  // Without a redis-server on PATH.
  ['demo', { PATH: '' }, 'js-redis-server'],
])('%s with %j says in one line which packages to install', (command, environment, packages) => {
  const { stderr, status } = spawnSync(
    process.execPath,
    [join(app, 'node_modules/reelhaul/dist/src/cli/main.js'), command],
    { cwd: app, env: { ...bed.environment, ...environment }, encoding: 'utf8' },
  );
  expect(stderr).toMatch(new RegExp(`^[^\n]*npm install ${packages}\n$`));
  expect(status).toBe(1);
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
