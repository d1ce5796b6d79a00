/**
 * What happened, over one stream or over those of several shards as if they were one. A cursor over several shards holds
 * one place in each, separated by commas; between shards there is no order but that of arrival.
 */
import type { RedisConnection } from '../redis/connect.js';
import { isCursor as isPlace, readEvents, type EventFilter, type GenerationEvent } from './event-stream.js';
import { createFinishWatch, type FinishWatch } from './waiters.js';
import type { Keys } from './keys.js';
import { shardOf } from '../generation/shard.js';

export interface EventLog {
  /** The cursor behind everything that happened so far. */
  newest(): Promise<string>;
  isCursor(text: string): boolean;
  /** Without a cursor: what happens from now on. @param openReader opens connections that reading may block. */
  read(
    openReader: () => Promise<RedisConnection>,
    filter: EventFilter,
  ): AsyncGenerator<GenerationEvent, void, void>;
  /** Wakes whoever waits for one generation. */
  watch(openReader: () => Promise<RedisConnection>): FinishWatch;
}

export interface EventLogDeps {
  readonly redis: RedisConnection;
  /** Of each shard. */
  readonly keys: readonly Keys[];
}

/** Before everything, in every shard. */
const START = '0-0';

export function createEventLog({ redis, keys }: EventLogDeps): EventLog {
  const streams = keys.map(({ events }) => events);

  async function newest(): Promise<string> {
    const last = await Promise.all(streams.map((stream) => redis.xrevrange(stream, '+', '-', 'COUNT', 1)));
    return last.map(([entry]) => entry?.[0] ?? START).join(',');
  }

  return {
    newest,

    isCursor(text) {
      const places = text.split(',');
      return text === START || (places.length === streams.length && places.every(isPlace));
    },

    async *read(openReader, filter) {
      const cursor = filter.cursor ?? (await newest());
      const places = cursor === START ? streams.map(() => START) : cursor.split(',');
      const { signal, generationId } = filter;
      // Of one generation only its own shard tells.
      const wanted = streams.flatMap((_, i) =>
        generationId === undefined || shardOf(generationId, streams.length) === i ? [i] : [],
      );
      const stops = wanted.map(() => new AbortController());
      const halt = () => {
        for (const stop of stops) stop.abort();
      };
      signal?.addEventListener('abort', halt, { once: true });
      if (signal?.aborted) halt();
      try {
        const sources = wanted.map((i, n) => ({
          i,
          events: readStream(openReader, streams[i]!, {
            ...filter,
            cursor: places[i]!,
            signal: stops[n]!.signal,
          }),
        }));
        for await (const { i, event } of merge(sources)) {
          places[i] = event.cursor;
          yield { ...event, cursor: places.join(',') };
        }
      } finally {
        signal?.removeEventListener('abort', halt);
        halt();
      }
    },

    watch(openReader) {
      const watches = streams.map((stream) => createFinishWatch(stream, openReader));
      return {
        open: (generationId) => watches[shardOf(generationId, watches.length)]!.open(generationId),
        async close() {
          await Promise.all(watches.map((watch) => watch.close()));
        },
      };
    },
  };
}

interface Source {
  readonly i: number;
  readonly events: AsyncGenerator<GenerationEvent, void, void>;
}

/** Opens the connection when it is first needed, so that none stays open behind an error of another. */
async function* readStream(
  openReader: () => Promise<RedisConnection>,
  stream: string,
  filter: EventFilter,
): AsyncGenerator<GenerationEvent, void, void> {
  yield* readEvents(await openReader(), stream, filter);
}

/** Whatever comes first, until all have ended or one has failed. */
async function* merge(
  sources: readonly Source[],
): AsyncGenerator<{ readonly i: number; readonly event: GenerationEvent }, void, void> {
  const next = (source: Source) => source.events.next().then((result) => ({ source, result }));
  const waiting = new Map(sources.map((source) => [source.i, next(source)]));
  while (waiting.size > 0) {
    const { source, result } = await Promise.race(waiting.values());
    if (result.done) waiting.delete(source.i);
    else {
      waiting.set(source.i, next(source));
      yield { i: source.i, event: result.value };
    }
  }
}
