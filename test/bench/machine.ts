/** What a figure was measured on: without it, it says nothing. */
import { cpus, release, totalmem } from 'node:os';
import type { Redis } from 'ioredis';

/** One line: Node, processors, memory, kernel, Redis. */
export async function describeMachine(redis: Redis): Promise<string> {
  const version = /^redis_version:(\S+)/m.exec(await redis.info('server'))?.[1] ?? 'unknown';
  const processors = `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}`;
  const memory = `${Math.round(totalmem() / 2 ** 30)} GB`;
  return `Node ${process.version}, ${processors}, ${memory}, Linux ${release()}, Redis ${version}`;
}
