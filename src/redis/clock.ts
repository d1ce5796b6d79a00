/**
 * The time of the Redis server, kept by this process. Every instant that is stored or compared is Redis' time, so that
 * processes whose own clocks differ agree. Redis is asked every few seconds; in between the monotonic clock counts on, so
 * that setting the clock of this machine changes nothing.
 *
 * One answer proves that the true time lies between the server's time and that plus the round trip. The clock is
 * corrected only when it lies outside of that, and then to the nearer end: a slow answer says little and changes little.
 */
import { essential } from './check.js';
import { type RedisConnection } from './connect.js';

export interface RedisClock {
  /** Epoch milliseconds of the Redis server, whole. */
  readonly now: () => number;
  /** By how much the process' own `Date.now()` is ahead of Redis, in milliseconds; negative when it is behind. */
  readonly skewMs: () => number;
  /** Asks Redis now. Rejects when it does not answer; the time known so far goes on. */
  sync(): Promise<void>;
  close(): void;
}

const SYNC_EVERY_MS = 10_000;
/** A step back of less than this is waited out; after a longer one (a failover to another server) time runs backwards. */
const STAND_STILL_MS = 1000;
/** The two clocks of this machine drifted apart by this: one of them was set, or the machine was suspended. */
const JUMP_MS = 1000;

/**
 * A script and not the command TIME: in a Cluster it is answered by the master that holds the keys of this prefix, whose
 * time all other scripts use.
 * KEYS 1 any key of the prefix · Returns seconds and microseconds.
 */
const TIME = `return redis.call('TIME')`;

/**
 * Asks Redis for its time and follows it until `close`.
 * @throws RedisUnusableError without the right to ask; what Redis answers instead of its time.
 */
export async function openClock(redis: RedisConnection, prefix: string): Promise<RedisClock> {
  const key = `${prefix}:clock`;
  /** Redis' time minus the monotonic clock; null before the first answer. */
  let offsetMs: number | null = null;
  let latest = 0;
  let syncing: Promise<void> | null = null;
  let apartMs = Date.now() - performance.now();

  async function ask(): Promise<void> {
    const askedAt = performance.now();
    const [seconds, microseconds] = (await redis.eval(TIME, 1, key)) as [string, string];
    const answeredAt = performance.now();
    const server = Number(seconds) * 1000 + Number(microseconds) / 1000;
    const [least, most] = [server - answeredAt, server - askedAt];
    offsetMs = offsetMs === null ? (least + most) / 2 : Math.min(Math.max(offsetMs, least), most);
  }

  function sync(): Promise<void> {
    syncing ??= ask().finally(() => (syncing = null));
    return syncing;
  }

  /** In the background: while Redis is away, the connection itself says so. */
  const syncSoon = () => void sync().catch(() => {});

  function now(): number {
    const elapsed = performance.now();
    const apart = Date.now() - elapsed;
    if (Math.abs(apart - apartMs) > JUMP_MS) {
      apartMs = apart;
      syncSoon();
    }
    const time = Math.floor((offsetMs ?? 0) + elapsed);
    if (time > latest || latest - time >= STAND_STILL_MS) latest = time;
    return latest;
  }

  await essential('EVAL and TIME', sync());
  const timer = setInterval(syncSoon, SYNC_EVERY_MS).unref();
  redis.on('ready', syncSoon);
  return {
    now,
    skewMs: () => Math.round(Date.now() - performance.now() - (offsetMs ?? 0)),
    sync,
    close() {
      clearInterval(timer);
      redis.off('ready', syncSoon);
    },
  };
}
