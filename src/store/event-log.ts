/** The event stream of this installation: its cursors, reading it, and waiting for one generation. */
import type { RedisConnection } from '../redis/connect.js';
import { isCursor, readEvents, type EventFilter, type GenerationEvent } from './event-stream.js';
import { createFinishWatch, type FinishWatch } from './waiters.js';
import type { Keys } from './keys.js';

export interface EventLog {
  /** The cursor behind everything that happened so far. */
  newest(): Promise<string>;
  isCursor(text: string): boolean;
  /** Without a cursor: what happens from now on. @param openReader opens connections that reading may block. */
  read(
    openReader: () => Promise<RedisConnection>,
    filter: EventFilter,
  ): AsyncGenerator<GenerationEvent, void, void>;
  /** Wakes the callers that wait for one generation. */
  watch(openReader: () => Promise<RedisConnection>): FinishWatch;
}

export interface EventLogDeps {
  readonly redis: RedisConnection;
  readonly keys: Pick<Keys, 'events'>;
}

export function createEventLog({ redis, keys: { events } }: EventLogDeps): EventLog {
  const newest = async () => (await redis.xrevrange(events, '+', '-', 'COUNT', 1))[0]?.[0] ?? '0-0';
  return {
    newest,
    isCursor,
    async *read(openReader, filter) {
      // Read before the connection opens, so that nothing which happens meanwhile is missed.
      const cursor = filter.cursor ?? (await newest());
      yield* readEvents(await openReader(), events, { ...filter, cursor });
    },
    watch: (openReader) => createFinishWatch(events, openReader),
  };
}
