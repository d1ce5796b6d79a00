import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { StorageConflictError, StorageError } from '../../src/errors.js';
import { createLocalStorage } from '../../src/storage/local.js';
import { needs } from '../support/needs.js';
import { describeStorage, streamOf } from './contract.js';

/** Children run what `tsc` made, as users do. */
const compiled = new URL('../../dist/src/storage/local.js', import.meta.url).href;
const type = { contentType: 'video/mp4' };

async function filesIn(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort();
}

describeStorage(
  'the local disk',
  async () => {
    const parent = await mkdtemp(join(tmpdir(), 'reelhaul-local-'));
    const root = join(parent, 'not', 'yet', 'there');
    return {
      storage: createLocalStorage({ root }),
      everything: () => filesIn(root),
      dispose: () => rm(parent, { recursive: true, force: true }),
    };
  },
  { largeBytes: 3_000_000 },
);

describe('the local disk', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'reelhaul-local-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  test('lets exactly one of many writers of different bytes win', async () => {
    const storages = Array.from({ length: 8 }, () => createLocalStorage({ root }));
    const outcomes = await Promise.allSettled(
      storages.map((storage, index) => storage.put('k', streamOf([Buffer.from(`writer ${index}`)]), type)),
    );
    const winners = outcomes.flatMap((outcome, index) => (outcome.status === 'fulfilled' ? [index] : []));
    expect(winners).toHaveLength(1);
    expect(await readFile(join(root, 'k'), 'utf8')).toBe(`writer ${winners[0]}`);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(StorageConflictError);
    }
    expect(await filesIn(root)).toEqual(['k']);
  });

  test('shows no byte of a file before its end', async () => {
    const storage = createLocalStorage({ root });
    const seen: unknown[] = [];
    await storage.put(
      'k',
      Readable.from(
        (async function* () {
          yield randomBytes(500_000);
          seen.push(await storage.stat('k'), (await readdir(root)).sort());
          yield randomBytes(10);
        })(),
        { objectMode: false },
      ),
      type,
    );
    expect(seen).toEqual([null, ['.reelhaul-partial']]);
  });

  test('does not leave the archive by a symbolic link', async () => {
    const outside = await mkdtemp(join(tmpdir(), 'reelhaul-outside-'));
    try {
      await writeFile(join(outside, 'secret'), 'secret');
      await symlink(outside, join(root, 'way-out'));
      const storage = createLocalStorage({ root });
      const refusal = { name: 'StorageError', retryable: false };
      await expect(storage.put('way-out/x', streamOf([Buffer.from('x')]), type)).rejects.toMatchObject(
        refusal,
      );
      await expect(storage.put('way-out/deep/x', streamOf([Buffer.from('x')]), type)).rejects.toMatchObject(
        refusal,
      );
      await expect(storage.read('way-out/secret')).rejects.toMatchObject(refusal);
      await expect(storage.stat('way-out/secret')).rejects.toMatchObject(refusal);
      await expect(storage.remove('way-out/secret')).rejects.toMatchObject(refusal);
      expect(await readdir(outside)).toEqual(['secret']);
    } finally {
      await rm(outside, { recursive: true, force: true });
    }
  });

  test('does not leave the archive by a symbolic link that comes up while it is writing', async () => {
    const outside = await mkdtemp(join(tmpdir(), 'reelhaul-outside-'));
    const source = Readable.from(
      (async function* () {
        yield Buffer.from('x');
        await symlink(outside, join(root, 'a'));
      })(),
      { objectMode: false },
    );
    const outcome = createLocalStorage({ root }).put('a/k', source, type);
    await expect(outcome).rejects.toMatchObject({ name: 'StorageError', retryable: false });
    expect(await readdir(outside)).toEqual([]);
    await rm(outside, { recursive: true });
  });

  test('neither follows nor replaces a symbolic link that stands in place of a file', async () => {
    const outside = join(await mkdtemp(join(tmpdir(), 'reelhaul-outside-')), 'secret');
    await writeFile(outside, 'secret');
    await symlink(outside, join(root, 'k'));
    const storage = createLocalStorage({ root });
    await expect(storage.put('k', streamOf([Buffer.from('secret')]), type)).rejects.toThrow(
      StorageConflictError,
    );
    await expect(storage.read('k')).rejects.toThrow(StorageError);
    expect(await storage.stat('k')).toBeNull();
    expect(await readFile(outside, 'utf8')).toBe('secret');
    await rm(dirname(outside), { recursive: true });
  });

  test('works in an archive that is itself reached by a symbolic link', async () => {
    await mkdir(join(root, 'real'));
    await symlink(join(root, 'real'), join(root, 'link'));
    const storage = createLocalStorage({ root: join(root, 'link') });
    await storage.put('a/k', streamOf([Buffer.from('x')]), type);
    expect(await storage.stat('a/k')).toEqual({ sizeBytes: 1 });
  });

  test('keeps the directory of unfinished files to itself', async () => {
    const storage = createLocalStorage({ root });
    await expect(storage.put('.reelhaul-partial/x', streamOf([Buffer.from('x')]), type)).rejects.toThrow(
      StorageError,
    );
  });

  test('says what to do when a file stands where a directory should be', async () => {
    await writeFile(join(root, 'a'), 'a file');
    const storage = createLocalStorage({ root });
    await expect(storage.put('a/k', streamOf([Buffer.from('x')]), type)).rejects.toMatchObject({
      name: 'StorageError',
      retryable: false,
      message: expect.stringContaining('a part of the path is a file'),
    });
    await expect(createLocalStorage({ root: join(root, 'a') }).probe()).rejects.toThrow(StorageError);
  });

  const inFileSystem = needs('unshare', spawnSync('unshare', ['-rm', 'true']).status === 0).test;

  inFileSystem.each([
    ['full', 'size=1m', '', { retryable: true, message: expect.stringContaining('the disk is full') }],
    [
      'read-only',
      'size=1m',
      'mount -o remount,ro "$0";',
      { retryable: false, message: expect.stringContaining('is read-only') },
    ],
  ])('says that the disk is %s, and leaves nothing', (_word, options, then, expected) => {
    const script = `
      import { createLocalStorage } from ${JSON.stringify(compiled)};
      import { readdir } from 'node:fs/promises';
      import { PassThrough, pipeline, Readable } from 'node:stream';
      const storage = createLocalStorage({ root: ${JSON.stringify(root)} });
      const endless = new Readable({ read() { this.push(Buffer.alloc(100_000, 1)); } });
      const source = new PassThrough();
      pipeline(endless, source, () => {});
      const error = await storage.put('a/k', source, { contentType: 'video/mp4' }).catch((error) => error);
      const { name, retryable, message } = error;
      const left = (await readdir(${JSON.stringify(root)}, { recursive: true })).filter((name) => name !== '.reelhaul-partial');
      console.log(JSON.stringify({ name, retryable, message, left }));
    `;
    // A file system of its own, which only this child sees.
    const { stdout } = spawnSync(
      'unshare',
      [
        '-rm',
        'sh',
        '-c',
        `mount -t tmpfs -o ${options} none "$0" && ${then} exec "$@"`,
        root,
        process.execPath,
        '--input-type=module',
        '-e',
        script,
      ],
      { encoding: 'utf8' },
    );
    expect(JSON.parse(stdout)).toEqual({ name: 'StorageError', left: [], ...expected });
  });

  test('removes what a killed writer left behind, once it is old enough', async () => {
    const script = `
      import { createLocalStorage } from ${JSON.stringify(compiled)};
      import { Readable } from 'node:stream';
      const source = Readable.from((async function* () {
        yield Buffer.alloc(1_000_000, 1);
        process.stdout.write('writing');
        await new Promise(() => setInterval(() => {}, 1000));
      })(), { objectMode: false });
      await createLocalStorage({ root: ${JSON.stringify(root)} }).put('a/video.mp4', source, { contentType: 'video/mp4' });
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');

    const left = await filesIn(root);
    expect(left).toEqual([expect.stringMatching(/^\.reelhaul-partial\/.+\.partial$/)]);
    const wroteAt = new Date(Date.now() - 60_000);
    await utimes(join(root, left[0]!), wroteAt, wroteAt);
    const storage = createLocalStorage({ root });
    expect(await storage.stat('a/video.mp4')).toBeNull();
    expect(await storage.removeAbandoned(3_600_000)).toBe(0);
    expect(await filesIn(root)).toEqual(left);
    expect(await storage.removeAbandoned(59_000)).toBe(1);
    expect(await filesIn(root)).toEqual([]);
    // The next try of the same generation is not in its way.
    await storage.put('a/video.mp4', streamOf([Buffer.from('whole')]), type);
    expect(await filesIn(root)).toEqual(['a/video.mp4']);
  });
});

test('files and folders are for this user only', async () => {
  const root = await mkdtemp(join(tmpdir(), 'reelhaul-modes-'));
  const storage = createLocalStorage({ root: join(root, 'archive') });
  await storage.put('a/b/k', streamOf([Buffer.from('x')]), type);
  const modeOf = async (path: string) => ((await stat(join(root, 'archive', path))).mode & 0o777).toString(8);
  expect(await Promise.all(['', 'a', 'a/b', 'a/b/k'].map(modeOf))).toEqual(['700', '700', '700', '600']);
  await rm(root, { recursive: true });
});

test('a clock of this machine that is far ahead abandons nothing that another process writes', async () => {
  const root = await mkdtemp(join(tmpdir(), 'reelhaul-clock-'));
  await mkdir(join(root, '.reelhaul-partial'));
  await writeFile(join(root, '.reelhaul-partial', 'live.partial'), 'half of a video');
  const now = Date.now;
  Date.now = () => now() + 31 * 24 * 3_600_000;
  try {
    expect(await createLocalStorage({ root }).removeAbandoned(1_800_000)).toBe(0);
  } finally {
    Date.now = now;
  }
  expect(await filesIn(root)).toEqual(['.reelhaul-partial/live.partial']);
  await rm(root, { recursive: true });
});

test('a name that the file system does not take is an input that cannot be used, not an outage', async () => {
  const root = await mkdtemp(join(tmpdir(), 'reelhaul-long-'));
  // What is too long all in all: each part is within its limit.
  const storage = createLocalStorage({
    root: join(root, ...Array.from({ length: 17 }, () => 'd'.repeat(230))),
  });
  await expect(storage.put(`${'k'.repeat(250)}/v`, streamOf([Buffer.from('x')]), type)).rejects.toMatchObject(
    {
      code: 'invalid_input',
    },
  );
  await rm(root, { recursive: true });
});
