/** An older version of reelhaul, built from a commit in a folder of its own, with the packages of this one. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RECORD_VERSION } from '../../src/store/read-record.js';

const here = fileURLToPath(new URL('.', import.meta.url));

export interface OldVersion {
  readonly commit: string;
  /** Its command line. */
  readonly cliFile: string;
  remove(): void;
}

const git = (...words: string[]) =>
  execFileSync('git', words, { cwd: here, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();

function tryGit(...words: string[]): string | null {
  try {
    return git(...words);
  } catch {
    return null;
  }
}

const commitOf = (name: string) => tryGit('rev-parse', '--verify', '--quiet', `${name}^{commit}`);

/** Does that commit write records that ours writes as well? Going back to one that does not is not promised. */
function sharesRecords(commit: string): boolean {
  const version = /RECORD_VERSION = (\d+)/.exec(
    tryGit('show', `${commit}:src/store/read-record.ts`) ?? '',
  )?.[1];
  return Number(version) === RECORD_VERSION;
}

/**
 * The commit that a name means; without one that of the newest release, or of twenty commits ago, or the oldest since
 * then that writes the same version of records. Null when this clone has none: a shallow one, or none of git.
 */
export function findCommit(name?: string): string | null {
  if (name !== undefined) return commitOf(name);
  const release = tryGit('describe', '--tags', '--abbrev=0', 'HEAD~1');
  const recent = Array.from({ length: 20 }, (_, i) => `HEAD~${20 - i}`);
  for (const candidate of [...(release === null ? [] : [release]), ...recent]) {
    const commit = commitOf(candidate);
    if (commit !== null && sharesRecords(commit)) return commit;
  }
  return null;
}

/** @throws when that commit does not compile with the packages of this one. */
export function buildOldVersion(commit: string): OldVersion {
  const root = git('rev-parse', '--show-toplevel');
  const folder = mkdtempSync(join(tmpdir(), 'reelhaul-old-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    const archive = execFileSync(
      'git',
      ['archive', commit, 'src', 'workers', 'package.json', 'tsconfig.json'],
      {
        cwd: root,
        maxBuffer: 2 ** 28,
      },
    );
    execFileSync('tar', ['-x', '-C', folder], { input: archive });
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    execFileSync(process.execPath, [tsc], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    remove();
    throw error;
  }
  return { commit, cliFile: join(folder, 'dist/src/cli/main.js'), remove };
}
