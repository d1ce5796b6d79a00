/**
 * A Redis of one's own on a free loopback port, for the demo and the tests: never one that is already running. A real
 * server from PATH when there is one, else the embedded one, which lives in memory and is for trying things out only.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { RedisUnusableError } from '../../errors.js';

const READY_WITHIN_MS = 20_000;
const STOP_WITHIN_MS = 5000;

export interface LaunchedRedis {
  readonly url: string;
  readonly port: number;
  /** `server`: a real one that can be killed and started again. `embedded`: JavaScript, in memory. */
  readonly kind: 'server' | 'embedded';
  /** What runs, for people. */
  readonly description: string;
  readonly pid: number;
  /** Starts a real server again on the same port and data, after `kill`. */
  start(): Promise<void>;
  /** SIGKILL, as a crash would. The data directory stays. */
  kill(): Promise<void>;
  /** Stops it and removes its data. */
  stop(): Promise<void>;
}

/** The first of these programs on PATH; null when there is none. */
export async function findOnPath(
  names: readonly string[],
  path = process.env['PATH'] ?? '',
): Promise<string | null> {
  for (const folder of path.split(delimiter).filter(Boolean)) {
    for (const name of names) {
      const file = join(folder, name);
      const found = await access(file, constants.X_OK).then(
        () => true,
        () => false,
      );
      if (found) return file;
    }
  }
  return null;
}

/** Below what systems give to outgoing connections (from 32768 on Linux, from 49152 elsewhere). */
const PORTS = { from: 20_000, to: 32_768 } as const;
const PORT_TRIES = 50;

/**
 * A loopback port that was free a moment ago, and that no outgoing connection takes: it stays free for a process that starts
 * there soon, or again.
 */
export async function freePort(dice: () => number = Math.random): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    const server = createServer();
    server.listen(PORTS.from + Math.floor((PORTS.to - PORTS.from) * dice()), '127.0.0.1');
    try {
      await once(server, 'listening');
    } catch (error) {
      if (tries === PORT_TRIES) throw error;
      continue;
    }
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return port;
  }
}

function embeddedProgram(): string {
  try {
    return createRequire(import.meta.url)
      .resolve('js-redis-server')
      .replace(/index\.js$/, 'cli.js');
  } catch (error) {
    throw new RedisUnusableError(
      'There is no Redis here. Install one (apt install redis-server, brew install redis), or take the embedded one: npm install js-redis-server',
      { cause: error },
    );
  }
}

async function answers(port: number): Promise<boolean> {
  const redis = new Redis(port, '127.0.0.1', {
    lazyConnect: true,
    retryStrategy: () => null,
    disconnectTimeout: 50,
  });
  redis.on('error', () => {});
  try {
    await redis.connect();
    return (await redis.ping()) === 'PONG';
  } catch {
    return false;
  } finally {
    redis.disconnect();
  }
}

/**
 * Starts it and waits until it answers.
 * @param options `embedded`: that one, also where a real server is installed
 * @throws RedisUnusableError with what to install when neither kind can be started.
 */
export async function launchRedis(
  extraArguments: readonly string[] = [],
  { embedded = false } = {},
): Promise<LaunchedRedis> {
  const server = embedded ? null : await findOnPath(['valkey-server', 'redis-server']);
  const kind = server ? 'server' : 'embedded';
  const port = await freePort();
  const directory = await mkdtemp(join(tmpdir(), 'reelhaul-redis-'));
  let child: ChildProcess;
  let output = '';

  const [command, ...parameters] = server
    ? [
        server,
        ...['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', ''],
        ...[
          '--appendonly',
          'yes',
          '--maxmemory-policy',
          'noeviction',
          '--loglevel',
          'warning',
          ...extraArguments,
        ],
      ]
    : [process.execPath, embeddedProgram(), '--port', String(port)];

  async function start(): Promise<void> {
    // A process group of its own: Ctrl-C in the terminal goes to the process that launched it, which stops it in order.
    child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => (output = (output + chunk.toString()).slice(-2000)));
    }
    child.on('error', (error) => (output += error.message));
    child.unref();
    const deadline = Date.now() + READY_WITHIN_MS;
    while (!(await answers(port))) {
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        throw new RedisUnusableError(`${command} did not start on port ${port}: ${output.trim()}`);
      }
      await wait(20);
    }
  }

  // However this process ends, nothing of it stays behind: not after a second Ctrl-C, nor a reader that went away.
  const leaveNothing = () => {
    child.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  };
  process.on('exit', leaveNothing);

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    // While it is waited for it must keep this process alive, or the process would end first.
    child.ref();
    const exited = once(child, 'exit');
    // The embedded one has nothing to save, and takes its time to end in order.
    child.kill(kind === 'embedded' ? 'SIGKILL' : signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
    await exited;
    clearTimeout(timer);
  }

  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    kind,
    description: server ?? 'the embedded server (in memory, for trying out only)',
    get pid() {
      return child.pid ?? 0;
    },
    start,
    kill: () => end('SIGKILL'),
    async stop() {
      await end('SIGTERM');
      process.off('exit', leaveNothing);
      await rm(directory, { recursive: true, force: true });
    },
  };
}
