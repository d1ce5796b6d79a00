/**
 * Storage on a local disk (or a mounted one).
 *
 * A file is written under a name of its own in `.reelhaul-partial`, flushed to the disk, and then linked to its key.
 * The link is one atomic step that fails when something is there, so a reader sees the whole file or none, and two
 * writers of different bytes cannot both win, on any number of machines. What a killed process leaves behind is in that
 * one directory, which `removeAbandoned` empties.
 */
import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import {
  link,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rmdir,
  stat,
  unlink,
  type FileHandle,
} from 'node:fs/promises';
import { dirname, join, resolve, sep } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InvalidInputError, StorageConflictError, StorageError } from '../errors.js';
import { assertKey } from './paths.js';
import { createMeter, type Measured } from './meter.js';
import type { PutOptions, Storage, StoredFile } from './storage.js';

export interface LocalStorageOptions {
  /** Directory of the archive; made when it is not there. */
  readonly root: string;
}

/** For this user only: videos and prompts belong to tenants. */
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

/** Pieces are gathered up to so much and written in one call: that saves a quarter of the CPU of a download. */
const WRITE_BYTES = 1024 * 1024;
const PARTIAL_DIRECTORY = '.reelhaul-partial';
const PROBE_DIRECTORY = '.reelhaul-probe';
/** How often a directory that vanished between making and using it is made again (`remove` takes empty ones away). */
const DIRECTORY_TRIES = 5;

/** Waiting mends these: disk or quota full, too many open files, a network disk that is away for a while. */
const PASSING: ReadonlySet<string> = new Set([
  'ENOSPC',
  'EDQUOT',
  'EMFILE',
  'ENFILE',
  'EIO',
  'EBUSY',
  'EAGAIN',
  'ESTALE',
  'ETIMEDOUT',
  'EHOSTDOWN',
  'ENOTCONN',
  'ENOENT',
]);
const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the quota is used up',
  EACCES: 'access is denied: give the user of this process the right to write there',
  EPERM: 'the operation is not permitted: give the user of this process the right to write there',
  EROFS: 'the file system is read-only',
  EXDEV: 'the archive must lie on one file system: nothing inside it may be a mount of its own',
  ENOTDIR: 'a part of the path is a file, not a directory',
  EISDIR: 'a directory is where the file should be',
  ELOOP: 'the path goes in circles',
};
/** What file systems without hard links say. */
const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

export function createLocalStorage({ root }: LocalStorageOptions): Storage {
  const home = resolve(root);
  const partials = join(home, PARTIAL_DIRECTORY);
  /** Where `home` was found to lie at the last look. */
  let realHome: string | null = null;
  /** Partial files of this very object, which are not abandoned however old they look. */
  const writing = new Set<string>();

  /** Where a key would lie. Refuses keys that are none. */
  function pathOf(key: string): string {
    assertKey(key);
    const parts = key.split('/');
    if (parts[0] === PARTIAL_DIRECTORY) {
      throw new StorageError(`The name ${PARTIAL_DIRECTORY} is kept for unfinished files.`, false);
    }
    return join(home, ...parts);
  }

  /** The same, refusing keys that lead out by a symbolic link on the way. */
  async function locate(key: string): Promise<string> {
    const path = pathOf(key);
    await assertInside(dirname(path), key);
    return path;
  }

  /** The nearest directory that exists must really lie in the archive. */
  async function assertInside(directory: string, key: string): Promise<void> {
    let existing = directory;
    let real = await realpathOrNull(existing);
    while (real === null && existing !== home) {
      existing = dirname(existing);
      real = await realpathOrNull(existing);
    }
    // Where the archive itself really lies is looked up again only when what was found is elsewhere.
    if (real === null || isIn(real, realHome)) return;
    realHome = await realpathOrNull(home);
    if (realHome !== null && !isIn(real, realHome)) {
      throw new StorageError(`The key ${key} leads out of the archive by a symbolic link.`, false);
    }
  }

  /** Writes all chunks to a new partial file, flushed to the disk. */
  async function writePartial(partial: string, chunks: AsyncIterable<Buffer>): Promise<void> {
    const file = await openNew(partial);
    try {
      let held: Buffer[] = [];
      let heldBytes = 0;
      for await (const chunk of chunks) {
        held.push(chunk);
        heldBytes += chunk.length;
        if (heldBytes < WRITE_BYTES) continue;
        await writeAll(file, held);
        held = [];
        heldBytes = 0;
      }
      await writeAll(file, held);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async function put(
    key: string,
    source: Readable,
    { signal, moreFollows = false }: PutOptions,
  ): Promise<StoredFile> {
    const meter = createMeter(source, signal);
    const partial = join(partials, `${randomUUID()}.partial`);
    try {
      const path = pathOf(key);
      signal?.throwIfAborted();
      writing.add(partial);
      await writePartial(partial, meter.chunks());
      const written = meter.measured();
      signal?.throwIfAborted();
      // Only now: what was found before the bytes had come could be another thing by the time they are named.
      await assertInside(dirname(path), key);
      if (!(await publish(partial, path)) && !(await holdsSameBytes(path, written))) {
        throw new StorageConflictError(key);
      }
      // Also when the file was there already: its writer may have died before this.
      if (!moreFollows) await syncDirectory(dirname(path));
      return { key, ...written };
    } catch (error) {
      meter.throwIfSourceFailed();
      throw asStorageError(error, `${key} cannot be stored`);
    } finally {
      meter.dispose();
      if (writing.delete(partial)) await unlink(partial).catch(() => {});
    }
  }

  async function lookUp(key: string): Promise<{ sizeBytes: number } | null> {
    try {
      const found = await lstat(await locate(key));
      return found.isFile() ? { sizeBytes: found.size } : null;
    } catch (error) {
      if (isMissing(error)) return null;
      throw asStorageError(error, `${key} cannot be looked up`);
    }
  }

  async function read(key: string, range?: { start: number; end: number }): Promise<Readable> {
    try {
      // No following of a link that stands in place of the file.
      const file = await open(await locate(key), constants.O_RDONLY | constants.O_NOFOLLOW);
      return file.createReadStream(range === undefined ? {} : { start: range.start, end: range.end });
    } catch (error) {
      if (isMissing(error)) throw new StorageError(`Nothing is stored as ${key}.`, false, { cause: error });
      throw asStorageError(error, `${key} cannot be read`);
    }
  }

  async function remove(key: string): Promise<void> {
    try {
      const path = await locate(key);
      await unlink(path).catch((error: unknown) => {
        if (!isMissing(error)) throw error;
      });
      await removeEmptyDirectories(dirname(path));
    } catch (error) {
      throw asStorageError(error, `${key} cannot be removed`);
    }
  }

  async function removeEmptyDirectories(from: string): Promise<void> {
    for (let directory = from; directory !== home; directory = dirname(directory)) {
      try {
        await rmdir(directory);
      } catch {
        return;
      }
    }
  }

  async function probe(): Promise<void> {
    const key = `${PROBE_DIRECTORY}/${randomUUID()}`;
    const bytes = Buffer.from(`reelhaul probe ${key}`);
    await put(key, Readable.from([bytes]), { contentType: 'text/plain' });
    try {
      const back = Buffer.concat(await (await read(key)).toArray());
      if (!back.equals(bytes))
        throw new StorageError(`${home} gives back other bytes than were written.`, false);
    } catch (error) {
      throw asStorageError(error, `${home} cannot be read`);
    } finally {
      await remove(key);
    }
  }

  async function removeAbandoned(
    olderThanMs: number,
    report: (problem: StorageError) => void = () => {},
  ): Promise<number> {
    let removed = 0;
    for (const directory of [partials, join(home, PROBE_DIRECTORY)]) {
      try {
        const names = await readdir(directory);
        if (names.length === 0) continue;
        const before = (await timeOf(directory)) - olderThanMs;
        for (const name of names) {
          const path = join(directory, name);
          if (!writing.has(path) && (await unlinkIfOld(path, before))) removed += 1;
        }
      } catch (error) {
        if (isMissing(error)) continue;
        const problem = asStorageError(error, `${directory} cannot be tidied`);
        if (!(problem instanceof StorageError)) throw problem;
        report(problem);
      }
    }
    return removed;
  }

  return {
    description: `directory ${home}`,
    put,
    stat: lookUp,
    read,
    remove,
    probe,
    removeAbandoned,
    close: () => Promise.resolve(),
  };
}

/** Makes the partial file visible as `path`. False when something is there already. */
async function publish(partial: string, path: string): Promise<boolean> {
  for (let tries = 1; ; tries += 1) {
    try {
      await linkOrRename(partial, path);
      return true;
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return false;
      if (codeOf(error) !== 'ENOENT' || tries === DIRECTORY_TRIES) throw error;
    }
    await makeDirectory(dirname(path));
  }
}

/** A new file, in a directory that is nearly always there. */
async function openNew(path: string): Promise<FileHandle> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await open(path, 'wx', FILE_MODE);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || tries === DIRECTORY_TRIES) throw error;
    }
    await makeDirectory(dirname(path));
  }
}

const isIn = (path: string, directory: string | null): boolean =>
  directory !== null &&
  (path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep));

/**
 * Directories up to `directory`, each entry flushed to the disk. Step by step, since the recursive `mkdir` of Node says
 * ENOENT where the truth is a read-only file system.
 */
async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, FOLDER_MODE);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') {
      const there = await stat(directory).catch(() => null);
      if (there?.isDirectory() === true) return;
      // Said apart from the EEXIST that means "the key is taken".
      throw Object.assign(new Error('something else is there'), { code: 'ENOTDIR' });
    }
    if (codeOf(error) !== 'ENOENT' || dirname(directory) === directory) throw error;
    await makeDirectory(dirname(directory));
    await makeDirectory(directory);
    return;
  }
  await syncDirectory(dirname(directory));
}

/** A write may take only a part, for instance on a disk that just became full, or of very many pieces. */
async function writeAll(file: FileHandle, pieces: readonly Buffer[]): Promise<void> {
  let left = pieces.filter(({ length }) => length > 0);
  while (left.length > 0) {
    let { bytesWritten } = await file.writev(left);
    const rest = left.findIndex(({ length }) => {
      if (length > bytesWritten) return true;
      bytesWritten -= length;
      return false;
    });
    left = rest === -1 ? [] : [left[rest]!.subarray(bytesWritten), ...left.slice(rest + 1)];
  }
}

/**
 * Gives the file its name, never taking one that is in use (`EEXIST`). File systems without hard links (FAT, some
 * network ones) cannot do that in one step; there a second writer could slip in between the look and the renaming.
 */
async function linkOrRename(partial: string, path: string): Promise<void> {
  try {
    await link(partial, path);
  } catch (error) {
    if (!NO_LINKS.has(codeOf(error))) throw error;
    const there = await lstat(path).catch(() => null);
    if (there !== null) throw Object.assign(new Error('exists'), { code: 'EEXIST' });
    await rename(partial, path);
  }
}

/** Is this a plain file with these bytes? */
async function holdsSameBytes(path: string, wanted: Measured): Promise<boolean> {
  const found = await lstat(path);
  if (!found.isFile() || found.size !== wanted.sizeBytes) return false;
  const hash = createHash('sha256');
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  await pipeline(file.createReadStream(), hash);
  return hash.digest('hex') === wanted.sha256;
}

/** Flushes a directory's entries, so that a power cut does not take a finished file's name away. */
async function syncDirectory(directory: string): Promise<void> {
  try {
    const handle = await open(directory, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    // Some systems cannot open or flush directories, and one may be readable to others only.
    if (!['EISDIR', 'EPERM', 'EINVAL', 'EACCES', 'ENOTSUP'].includes(codeOf(error))) throw error;
  }
}

/** The time of the file system, which may be another machine's: that of a file written there now. Epoch ms. */
async function timeOf(directory: string): Promise<number> {
  const path = join(directory, `${randomUUID()}.clock`);
  const file = await openNew(path);
  try {
    return (await file.stat()).mtimeMs;
  } finally {
    await file.close();
    await unlink(path).catch(() => {});
  }
}

async function unlinkIfOld(path: string, before: number): Promise<boolean> {
  try {
    if ((await lstat(path)).mtimeMs >= before) return false;
    await unlink(path);
    return true;
  } catch (error) {
    // Another replica was faster.
    if (isMissing(error)) return false;
    throw error;
  }
}

async function realpathOrNull(path: string): Promise<string | null> {
  try {
    return await realpath(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** Not by class: errors of the platform may come from another realm than ours. */
function codeOf(error: unknown): string {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : null;
  return typeof code === 'string' ? code : '';
}

function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(codeOf(error));
}

/** Errors of the file system as `StorageError`; others pass as they are. */
function asStorageError(error: unknown, what: string): unknown {
  const code = codeOf(error);
  if (code === 'ENAMETOOLONG') {
    // No waiting mends it: it is about this key alone.
    const message = 'expected a name that is short enough for the file system';
    return new InvalidInputError(what, [{ path: 'key', message }]);
  }
  if (error instanceof StorageError || error instanceof StorageConflictError || !/^E[A-Z0-9]+$/.test(code))
    return error;
  return new StorageError(`${what}: ${ADVICE[code] ?? code}.`, PASSING.has(code), { cause: error });
}
