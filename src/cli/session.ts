/**
 * What a command stands on: the settings, the log, the library. They are loaded when a command runs, so that a wrong
 * command line and `--help` are answered without them, at once.
 */
import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import { ReelhaulError } from '../errors.js';
import type { Reelhaul } from '../reelhaul.js';

/** The settings of the environment. Throws `ConfigError`, which names each one that is wrong. */
export async function readSettings(): Promise<Config> {
  const { readConfig } = await import('../config/config.js');
  return readConfig(process.env);
}

export async function loggerFor(
  config: Config,
  onAlarm: (alarm: string) => void = () => {},
): Promise<Logger> {
  const { misspeltSettings, secretsIn } = await import('../config/config.js');
  const { createLogger } = await import('../telemetry/logger.js');
  const secrets = secretsIn(config, process.env);
  const log = createLogger({ level: config.LOG_LEVEL, secrets, isTerminal: process.stdout.isTTY, onAlarm });
  for (const { path, message } of misspeltSettings(process.env)) log.warn(`${path} ${message}`);
  return log;
}

export async function withLibrary(work: (reelhaul: Reelhaul) => Promise<void>): Promise<void> {
  const config = await readSettings();
  const { createReelhaul } = await import('../reelhaul.js');
  const reelhaul = await createReelhaul({ config });
  try {
    await work(reelhaul);
  } finally {
    await reelhaul.close();
  }
}

/** Names the setting that a port comes from when the system refuses it. */
export async function listenOn<T>(setting: string, listening: Promise<T>): Promise<T> {
  try {
    return await listening;
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'EADDRINUSE' || error.code === 'EACCES'))
      throw new ReelhaulError('port_unusable', `${error.message}. Choose another port with ${setting}.`, {
        cause: error,
      });
    throw error;
  }
}

const LOOK_FOR_PARENT_MS = 1000;

/** The process above `pid`; null where the system has no /proc. */
function parentOf(pid: number): string | null {
  try {
    return /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? null;
  } catch {
    return null;
  }
}

/**
 * npm and npx end at SIGTERM and do not pass it on: what they started would go on as an orphan. The system tells a process
 * nothing when its parent ends, so its parent is looked at once a second, and above a shell between the two as well.
 */
function whenPackageManagerEnds(gone: () => void): void {
  if (!process.env['npm_config_user_agent']) return;
  const ancestors = () => `${process.ppid} ${parentOf(process.ppid)}`;
  const first = ancestors();
  const timer = setInterval(() => {
    if (ancestors() === first) return;
    clearInterval(timer);
    gone();
  }, LOOK_FOR_PARENT_MS).unref();
}

/**
 * Resolves at the first SIGINT, SIGTERM or SIGHUP, or when the npm that started this process ends; a second signal ends
 * the process at once.
 */
export function askedToStop(): Promise<NodeJS.Signals | 'parent ended'> {
  return new Promise((resolve) => {
    let asked = false;
    whenPackageManagerEnds(() => {
      asked = true;
      resolve('parent ended');
    });
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => {
        if (asked) process.exit(1);
        asked = true;
        resolve(name);
      });
    }
  });
}
