/** Every command and snippet of the README is run, or is the command that runs this. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { runCommand } from './support/command-line.js';
import { needs } from './support/needs.js';
import { SECRET } from './support/receiver.js';
import { cliFile, createTestbed, type Testbed } from './support/testbed.js';
import { until } from './support/until.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const blocks = (language: string) =>
  [...readme.matchAll(/```(\w*)\n([\s\S]*?)```/g)]
    .filter(([, name]) => name === language)
    .map(([, , text]) => text!);
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};
/** Name, and the rest of its row. */
const commandsInTable = [...readme.matchAll(/^\| `npx reelhaul ([\w-]+)(.*)$/gm)].map(
  ([, name, row]) => [name!, row!] as const,
);

let bed: Testbed;
/** A project as npm leaves it when reelhaul is installed. */
let project: string;
beforeAll(async () => {
  bed = await createTestbed();
  await bed.work();
  project = await mkdtemp(join(tmpdir(), 'reelhaul-project-'));
  const modules = join(project, 'node_modules');
  await mkdir(join(modules, '.bin'), { recursive: true });
  await symlink(root, join(modules, 'reelhaul'));
  await symlink('../reelhaul/dist/src/cli/main.js', join(modules, '.bin', 'reelhaul'));
  await writeFile(join(project, 'package.json'), '{}');
});
afterAll(async () => {
  await bed.close();
  await rm(project, { recursive: true });
});

function environment(): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env;
  return { PATH, HOME, ...bed.environment };
}

async function run(
  command: string,
  args: readonly string[],
  cwd = root,
): Promise<{ code: number; out: string }> {
  const child = spawn(command, args, { cwd, env: environment() });
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out };
}

test('the library’s ten lines end with a stored video', async () => {
  const folder = join(root, 'dist', 'readme');
  await mkdir(folder, { recursive: true });
  const file = join(folder, 'snippet.mjs');
  await writeFile(file, blocks('js')[0]!);
  // The snippet knows nothing of prefixes; the environment does.
  const { code, out } = await run(process.execPath, [file]);
  await rm(folder, { recursive: true });
  expect(out).toMatch(/^succeeded .*video\.mp4/);
  expect(code).toBe(0);
});

needs('curl').test('the curl of the README enqueues, and its notification is read as shown', async () => {
  const TOKEN = 'token-of-the-readme-test';
  const server = bed.spawnWorker({ PORT: '0', LOG_LEVEL: 'info', API_TOKENS: TOKEN }, [cliFile, 'serve']);
  const port = await until(() => /"port":(\d+)/.exec(server.output())?.[1], 'the server’s port');
  const command = blocks('sh').find((text) => text.startsWith('curl'))!;
  const script = `TOKEN=${TOKEN}; ${command.replace('127.0.0.1:3000', `127.0.0.1:${port}`)}`;
  const { out } = await run('sh', ['-c', script]);
  const { id } = JSON.parse(out) as { id: string };
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  server.child.kill('SIGTERM');
  expect(await server.exited).toBe(0);

  const snippet = blocks('js')[1]!;
  const folder = join(root, 'dist', 'readme-notification');
  await mkdir(folder, { recursive: true });
  const call = `
    const body = JSON.stringify({ type: 'generation.succeeded', data: { id: '${id}' } });
    const now = new Date();
    const headers = { 'webhook-id': 'x', 'webhook-timestamp': String(Math.floor(now / 1000)) };
    headers['webhook-signature'] = new Webhook(process.env.NOTIFY_SECRET).sign('x', now, body);
    process.stdout.write(readNotification(headers, body).generation.id);
    try { readNotification(headers, body + ' '); } catch { process.stdout.write(' refused'); }`;
  await writeFile(join(folder, 'snippet.mjs'), `process.env.NOTIFY_SECRET = '${SECRET}';\n${snippet}${call}`);
  const read = await run(process.execPath, [join(folder, 'snippet.mjs')]);
  await rm(folder, { recursive: true });
  expect(read.out).toBe(`${id} refused`);
});

test('require works as the README says', async () => {
  const script = "const { createReelhaul } = require('reelhaul'); console.log(typeof createReelhaul)";
  expect((await run(process.execPath, ['-e', script])).out).toContain('function');
});

test('npm run demo: three real videos, and nothing left running', async () => {
  const { code, out } = await run(process.execPath, [cliFile, 'demo']);
  expect(code).toBe(0);
  const files = [...out.matchAll(/\S+video\.mp4/g)].map(([file]) => file);
  expect(files).toHaveLength(3);
  for (const file of files) {
    expect(readFileSync(file).subarray(4, 8).toString()).toBe('ftyp');
    await rm(dirname(file), { recursive: true });
  }
  const port = /port (\d+)/.exec(out)![1]!;
  const worker = Number(/process (\d+)/.exec(out)![1]);
  expect(() => process.kill(worker, 0)).toThrow();
  expect(spawnSync('sh', ['-c', `exec 3<>/dev/tcp/127.0.0.1/${port}`]).status).not.toBe(0);
});

test('the demo stops everything on Ctrl-C', async () => {
  const child = spawn(process.execPath, [cliFile, 'demo'], { cwd: root, env: environment() });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  const closed = once(child, 'close');
  await until(() => /generating/.test(out), 'a generation to be under way');
  child.kill('SIGINT');
  expect((await closed)[0]).toBe(130);
  expect(() => process.kill(Number(/process (\d+)/.exec(out)![1]), 0)).toThrow();
});

test('a live run says that it bills, and submits nothing unless that is accepted', async () => {
  const { code, out } = await run(process.execPath, [cliFile, 'demo', '--live', '--prompt', 'x']);
  expect(out).toContain('It will be billed');
  expect(code).toBe(1);
  expect(bed.simulator.ledger().submits.filter(({ prompt }) => prompt === 'x')).toEqual([]);
});

test('a live run, accepted, ends with one submit and a file', async () => {
  const { code, out } = await run(process.execPath, [
    ...[
      cliFile,
      'demo',
      '--live',
      '--yes',
      '--prompt',
      'a live one',
      '--image',
      'https://example.com/boat.png',
    ],
  ]);
  expect(code).toBe(0);
  expect(bed.simulator.ledger().submits.filter(({ prompt }) => prompt === 'a live one')).toHaveLength(1);
  await rm(dirname(/\S+video\.mp4/.exec(out)![0]), { recursive: true });
});

test('every npm script that is named exists', () => {
  const named = [...readme.matchAll(/npm (?:run )?(?!install|scripts|and\b)(\w+)/g)].map(([, name]) => name!);
  expect(named).toEqual(expect.arrayContaining(['test', 'demo', 'chaos', 'check']));
  for (const name of named) expect(Object.keys(scripts)).toContain(name);
});

test('npx reelhaul is the command', async () => {
  const args = ['--no-install', 'reelhaul', commandsInTable[0]![0], '--help'];
  const { code, out } = await run('npx', args, project);
  expect(out).toContain(`Usage: reelhaul ${commandsInTable[0]![0]}`);
  expect(code).toBe(0);
});

test.each(commandsInTable)('npx reelhaul %s is a command, with the flags of the table', async (name, row) => {
  const { code, out } = await runCommand([name, '--help'], {});
  expect(out).toContain(`Usage: reelhaul ${name}`);
  expect(code).toBe(0);
  for (const [flag] of row.matchAll(/--[a-z][a-z-]+/g)) expect(out).toContain(flag);
});

test('reelhaul worker starts and stops as shown', async () => {
  const block = blocks('sh').find((text) => text.includes('reelhaul worker'))!;
  expect(block).toMatch(/^export COMETAPI_KEY=[^]*\nnode_modules\/\.bin\/reelhaul worker\n$/);
  const worker = bed.spawnWorker({ LOG_LEVEL: 'info' });
  await until(() => worker.output().includes('worker started'), 'the worker to start');
  worker.child.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});

test('a worker that npx started stops in order when npx ends', async () => {
  const npx = spawn('npx', ['--no-install', 'reelhaul', 'worker'], {
    cwd: project,
    env: { ...environment(), LOG_LEVEL: 'info' },
  });
  let out = '';
  npx.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  // The pipe is open for as long as the worker lives.
  const closed = once(npx, 'close');
  await until(() => out.includes('worker started'), 'the worker to start');
  npx.kill('SIGTERM');
  await closed;
  expect(out).toContain('"signal":"parent ended"');
  expect(out).toContain('worker stopped');
});

test('npx reelhaul simulate and serve answer', async () => {
  const simulator = bed.spawnWorker({}, [cliFile, 'simulate']);
  const url = await until(
    () => /http:\S+(?=\/ledger)/.exec(simulator.output())?.[0],
    'the simulator’s address',
  );
  expect((await fetch(`${url}/ledger`)).status).toBe(200);
  const exported = [
    `COMETAPI_BASE_URL=${url}`,
    'COMETAPI_KEY=',
    'ARCHIVE_ALLOW_HOSTS=',
    'REDIS_URL=',
    'REDIS_PREFIX=',
  ];
  for (const name of exported) expect(simulator.output()).toContain(`  export ${name}`);
  const server = bed.spawnWorker({ PORT: '0', LOG_LEVEL: 'info' }, [cliFile, 'serve']);
  const port = await until(() => /"port":(\d+)/.exec(server.output())?.[1], 'the server’s port');
  expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
  for (const { child, exited } of [simulator, server]) {
    child.kill('SIGTERM');
    expect(await exited).toBe(0);
  }
});

test('every link to a file of the repository leads somewhere', () => {
  for (const [, target] of readme.matchAll(/\]\((?!https?:)([^)#]+)/g))
    expect([target, existsSync(join(root, target!))]).toEqual([target, true]);
});
