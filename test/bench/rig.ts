/** What every benchmark stands on: a Redis of its own, the simulator as a process, a folder for the archive. */
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import type { SimulatorOptions } from '../../src/simulator/simulator.js';
import { startProgram, type Program } from './processes.js';
import { startSimulatorProcess, type SimulatorProcess } from './simulator/process.js';

const cliFile = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** As docker-compose.yml has it: records and jobs as lists rather than tables. The name is the one that 6.2 knows too. */
export const COMPACT = ['--hash-max-ziplist-value', '2048'];

export const KEY = 'bench-key-0123456789';
export const IMAGE = 'https://example.com/still.png';

/** In memory where there is such a place: the speed of a disk is not the subject. */
const ARCHIVES = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export interface Rig {
  readonly redis: LaunchedRedis;
  /** For looking at Redis from outside. */
  readonly client: Redis;
  readonly simulator: SimulatorProcess;
  readonly archive: string;
  /** What reelhaul's own processes need to know. */
  readonly environment: Readonly<Record<string, string>>;
  /** Starts the command line with that environment and `extra`; stopped by `close`. */
  reelhaul(parameters: readonly string[], extra?: Readonly<Record<string, string>>): Program;
  /** Starts another program; stopped by `close`. */
  program(
    file: string,
    parameters: readonly string[],
    environment: Readonly<Record<string, string>>,
  ): Program;
  close(): Promise<void>;
}

export async function createRig(
  simulatorOptions: Pick<SimulatorOptions, 'seed' | 'taskDurationMs' | 'script'> = {},
): Promise<Rig> {
  const redis = await launchRedis(['--appendfsync', 'everysec', ...COMPACT]);
  const client = new Redis(redis.url);
  const simulator = await startSimulatorProcess(simulatorOptions);
  const archive = await mkdtemp(join(ARCHIVES, 'reelhaul-bench-'));
  const environment = {
    COMETAPI_KEY: KEY,
    COMETAPI_BASE_URL: simulator.url,
    REDIS_URL: redis.url,
    STORAGE_URL: `file:${archive}`,
    ARCHIVE_ALLOW_HOSTS: '127.0.0.1',
    INPUT_URL_CHECK: 'false',
    LOG_LEVEL: 'warn',
  };
  const leaveNothing = () => rmSync(archive, { recursive: true, force: true });
  process.once('exit', leaveNothing);
  const programs: Program[] = [];
  const start: Rig['program'] = (file, parameters, variables) => {
    const program = startProgram(file, parameters, variables);
    programs.push(program);
    return program;
  };
  return {
    redis,
    client,
    simulator,
    archive,
    environment,
    program: start,
    reelhaul: (parameters, extra = {}) => start(cliFile, parameters, { ...environment, ...extra }),
    async close() {
      await Promise.all(programs.map((program) => program.stop()));
      await simulator.program.stop();
      await client.quit();
      await redis.stop();
      await rm(archive, { recursive: true, force: true });
      process.off('exit', leaveNothing);
    },
  };
}
