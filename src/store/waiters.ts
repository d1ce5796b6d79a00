/**
 * Waiting for generations: one connection reads the event stream and wakes all waiters.
 * A waiter that is woken looks at the record itself; an event that the bounded stream has dropped already costs only
 * time, since every waiter also looks by itself now and then.
 */
import type { RedisConnection } from '../redis/connect.js';

const BLOCK_MS = 5000;
const LOOK_AGAIN_MS = 15_000;
const READ_COUNT = 500;

export interface FinishWait {
  /** Resolves when something may have changed, or the time is over. Rejects with the signal's reason. */
  next(options: { timeoutMs: number | null; signal: AbortSignal | undefined }): Promise<void>;
  close(): void;
}

export interface FinishWatch {
  open(generationId: string): Promise<FinishWait>;
  close(): Promise<void>;
}

export function createFinishWatch(
  eventsKey: string,
  openReader: () => Promise<RedisConnection>,
): FinishWatch {
  const waiters = new Map<string, Set<() => void>>();
  let reader: Promise<RedisConnection> | null = null;
  let reading: Promise<void> | null = null;
  let lastId = '';

  async function read(redis: RedisConnection): Promise<void> {
    try {
      while (waiters.size > 0) {
        const replies = await redis.xread(
          'COUNT',
          READ_COUNT,
          'BLOCK',
          BLOCK_MS,
          'STREAMS',
          eventsKey,
          lastId,
        );
        for (const [, entries] of replies ?? []) {
          for (const [entryId, fields] of entries) {
            lastId = entryId;
            const at = fields.indexOf('id');
            for (const wake of waiters.get(fields[at + 1] ?? '') ?? []) wake();
          }
        }
      }
    } catch {
      // The connection failed: waiters look by themselves meanwhile, and the next look starts reading again.
    }
    // In the same tick as the last look at the waiters, so that none can join a reading that is over.
    reading = null;
  }

  async function ensureReading(): Promise<void> {
    reader ??= openReader().catch((error: unknown) => {
      // The next wait tries to connect again.
      reader = null;
      throw error;
    });
    const redis = await reader;
    if (reading) return;
    // From here on nothing is missed: the newest entry that exists now is where reading begins.
    const newest = await redis.xrevrange(eventsKey, '+', '-', 'COUNT', 1);
    if (reading) return;
    lastId = newest[0]?.[0] ?? '0-0';
    reading = read(redis);
  }

  return {
    async open(generationId) {
      let woken = false;
      let wake = () => {};
      const notice = () => {
        woken = true;
        wake();
      };
      const set = waiters.get(generationId) ?? new Set();
      waiters.set(generationId, set.add(notice));
      const leave = () => {
        set.delete(notice);
        if (set.size === 0) waiters.delete(generationId);
      };
      try {
        await ensureReading();
      } catch (error) {
        leave();
        throw error;
      }

      return {
        async next({ timeoutMs, signal }) {
          signal?.throwIfAborted();
          if (!woken) {
            await new Promise<void>((resolve) => {
              const timer = setTimeout(resolve, Math.min(timeoutMs ?? LOOK_AGAIN_MS, LOOK_AGAIN_MS));
              wake = () => {
                clearTimeout(timer);
                resolve();
              };
              signal?.addEventListener('abort', wake, { once: true });
            });
            signal?.removeEventListener('abort', wake);
            signal?.throwIfAborted();
            await ensureReading();
          }
          woken = false;
          wake = () => {};
        },
        close: leave,
      };
    },

    async close() {
      waiters.clear();
      if (!reader) return;
      (await reader).disconnect();
      await reading;
    },
  };
}
