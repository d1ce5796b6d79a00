/**
 * The event stream as apps see it: one entry per transition (and per progress or alarm), readable from any cursor that
 * the bounded stream still holds.
 */
import type { RedisConnection } from '../redis/connect.js';
import type { State } from '../generation/states.js';

/** The stream is cut at about this many entries. */
export const MAX_EVENTS = 10_000;
const BLOCK_MS = 5000;
const READ_COUNT = 200;

export interface GenerationEvent {
  /** Hand it back to go on behind this event, also in another process. */
  readonly cursor: string;
  readonly generationId: string;
  readonly tenant: string;
  /** `state`: a transition. `progress`: `text` is the percentage. Others are alarms, such as `second_task`. */
  readonly type: string;
  readonly from: State | null;
  readonly to: State | null;
  readonly text: string | null;
  /** Epoch milliseconds. */
  readonly at: number;
}

export interface EventFilter {
  readonly generationId?: string;
  readonly tenant?: string;
  /** Begin behind this event; default: with what happens from now on. */
  readonly cursor?: string;
  readonly signal?: AbortSignal;
}

function readEntry(cursor: string, fields: readonly string[]): GenerationEvent {
  const entry: Record<string, string> = {};
  for (let i = 0; i + 1 < fields.length; i += 2) entry[fields[i]!] = fields[i + 1]!;
  return {
    cursor,
    generationId: entry['id'] ?? '',
    tenant: entry['tenant'] ?? '',
    type: entry['type'] ?? '',
    from: (entry['from'] || null) as State | null,
    to: (entry['to'] || null) as State | null,
    text: entry['text'] ?? null,
    at: Number(entry['at'] ?? 0),
  };
}

/** Is this the id of a stream entry? Redis would refuse anything else with an error of its own. */
export function isCursor(text: string): boolean {
  return /^\d{1,20}-\d{1,20}$/.test(text);
}

/**
 * Reads events until the signal aborts (then it ends, without an error). `reader` is a connection of its own, since it
 * blocks; it is disconnected at the end, also when the consumer stops early.
 */
export async function* readEvents(
  reader: RedisConnection,
  eventsKey: string,
  { generationId, tenant, cursor, signal }: EventFilter,
): AsyncGenerator<GenerationEvent, void, void> {
  const stop = () => reader.disconnect();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    let last = cursor ?? (await reader.xrevrange(eventsKey, '+', '-', 'COUNT', 1))[0]?.[0] ?? '0-0';
    while (!signal?.aborted) {
      const replies = await reader.xread('COUNT', READ_COUNT, 'BLOCK', BLOCK_MS, 'STREAMS', eventsKey, last);
      for (const [, entries] of replies ?? []) {
        for (const [entryId, fields] of entries) {
          last = entryId;
          const event = readEntry(entryId, fields);
          const wanted = generationId === undefined || event.generationId === generationId;
          if (wanted && (tenant === undefined || event.tenant === tenant)) yield event;
        }
      }
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
    reader.disconnect();
  }
}
