/**
 * Which stages have a worker right now. A worker announces its stages every few seconds, and takes the announcement back
 * when it stops; one that dies is missed when its announcement has run out.
 */
import { STAGES, type Stage } from '../generation/states.js';
import type { Keys } from '../store/keys.js';
import type { RedisConnection } from '../redis/connect.js';

const ANNOUNCE_EVERY_MS = 4000;
const GOOD_FOR_MS = 10_000;

export interface PresenceDeps {
  readonly redis: RedisConnection;
  readonly keys: Pick<Keys, 'workers'>;
  readonly now: () => number;
}

/**
 * Announces these stages of this process until it is closed.
 * @param isTaking whether they take jobs just now; while they do not, nothing is announced.
 */
export function announceStages(
  { redis, keys, now }: PresenceDeps,
  stages: readonly Stage[],
  isTaking: () => boolean,
): { close(): Promise<void> } {
  const members = stages.map((stage) => `${stage} ${crypto.randomUUID()}`);

  async function announce(): Promise<void> {
    if (!isTaking()) return withdraw();
    const until = now() + GOOD_FOR_MS;
    const line = redis.pipeline();
    line.zadd(keys.workers, ...members.flatMap((member) => [until, member]));
    line.zremrangebyscore(keys.workers, '-inf', now());
    line.pexpire(keys.workers, GOOD_FOR_MS);
    await line.exec();
  }

  async function withdraw(): Promise<void> {
    await redis.zrem(keys.workers, ...members);
  }

  /** While Redis is away, the connection itself says so. */
  const announceSoon = () => void announce().catch(() => {});
  announceSoon();
  const timer = setInterval(announceSoon, ANNOUNCE_EVERY_MS);
  return {
    async close() {
      clearInterval(timer);
      if (redis.status === 'ready') await withdraw().catch(() => {});
    },
  };
}

/** How many workers take jobs of each stage. */
export async function countWorkers({ redis, keys, now }: PresenceDeps): Promise<Record<Stage, number>> {
  const members = await redis.zrangebyscore(keys.workers, now(), '+inf');
  const of = (stage: Stage) => members.filter((member) => member.startsWith(`${stage} `)).length;
  return Object.fromEntries(STAGES.map((stage) => [stage, of(stage)])) as Record<Stage, number>;
}
