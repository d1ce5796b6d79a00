/**
 * What a command stands on: the settings, the log, the library. They are loaded when a command runs, so that a wrong
 * command line and `--help` are answered without them, at once.
 */
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
  const [{ secretsIn }, { createLogger }] = await Promise.all([
    import('../config/config.js'),
    import('../telemetry/logger.js'),
  ]);
  const secrets = secretsIn(config, process.env);
  return createLogger({ level: config.LOG_LEVEL, secrets, isTerminal: process.stdout.isTTY, onAlarm });
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

/** Resolves at the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. */
export function askedToStop(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let asked = false;
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => {
        if (asked) process.exit(1);
        asked = true;
        resolve(name);
      });
    }
  });
}
