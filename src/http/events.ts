/**
 * Events as a stream of server-sent events. Each has the cursor as its `id`, so a client that reconnects with
 * `Last-Event-ID` misses nothing that the bounded stream still holds. The stream of one generation begins with that
 * generation as it is, read after the place from which events are told, so that nothing falls between the two.
 *
 * Each open stream holds a connection to Redis; there are at most `MAX_STREAMS` of them per process, and at most
 * `MAX_STREAMS_PER_TOKEN` of one token, so that no token takes them all.
 */
import { Hono, type Context } from 'hono';
import { streamSSE } from 'hono/streaming';
import { InvalidInputError } from '../errors.js';
import type { Generation } from '../generation/record.js';
import type { Hub } from '../pipeline/context.js';
import type { Reelhaul } from '../reelhaul.js';
import type { ApiEnv } from './access.js';
import { check } from './bodies.js';
import { seen, tenantOf } from './generations.js';
import { HttpError } from './problems.js';
import { eventsQuerySchema } from './schemas.js';

const MAX_STREAMS = 200;
const MAX_STREAMS_PER_TOKEN = 50;
/** Proxies close connections on which nothing is said; most after 60 s. */
const HEARTBEAT_MS = 15_000;
const RECONNECT_MS = 2000;

export interface EventRoutes {
  readonly routes: Hono<ApiEnv>;
  /** Ends all open streams: a server that stops waits for none of them. */
  close(): void;
}

export function createEventRoutes(hub: Hub, reelhaul: Reelhaul): EventRoutes {
  const routes = new Hono<ApiEnv>();
  const open = new Map<AbortController, string>();

  async function startingPoint(c: Context, asked: string | undefined): Promise<string> {
    const cursor = c.req.header('last-event-id') ?? asked;
    if (cursor !== undefined) {
      if (hub.events.isCursor(cursor)) return cursor;
      throw new InvalidInputError('The events cannot be read', [
        { path: 'Last-Event-ID', message: 'expected the id of an event' },
      ]);
    }
    return hub.events.newest();
  }

  function stream(
    c: Context<ApiEnv>,
    filter: { readonly cursor: string; readonly tenant?: string; readonly generationId?: string },
    first: Generation | null,
  ): Response {
    if (open.size >= MAX_STREAMS) {
      throw new HttpError(503, 'too_many_streams', `At most ${MAX_STREAMS} event streams at once.`, {
        'retry-after': '10',
      });
    }
    const { name } = c.var.caller;
    if ([...open.values()].filter((one) => one === name).length >= MAX_STREAMS_PER_TOKEN) {
      const detail = `Expected at most ${MAX_STREAMS_PER_TOKEN} event streams of one token at once.`;
      throw new HttpError(429, 'too_many_streams', detail, { 'retry-after': '10' });
    }
    const ended = new AbortController();
    open.set(ended, name);
    c.header('cache-control', 'no-store');
    c.header('x-accel-buffering', 'no');
    return streamSSE(c, async (sse) => {
      sse.onAbort(() => ended.abort());
      const heartbeat = setInterval(() => void sse.write(': still here\n\n'), HEARTBEAT_MS);
      try {
        await sse.writeSSE({
          id: filter.cursor,
          retry: RECONNECT_MS,
          event: first ? 'generation' : 'hello',
          data: JSON.stringify(first ?? {}),
        });
        for await (const event of reelhaul.events({ ...filter, signal: ended.signal }))
          await sse.writeSSE({ id: event.cursor, event: event.type, data: JSON.stringify(event) });
      } catch (error) {
        if (!ended.signal.aborted) hub.log.warn({ err: error }, 'an event stream ended early');
      } finally {
        clearInterval(heartbeat);
        open.delete(ended);
      }
    });
  }

  routes.get('/events', async (c) => {
    const query = check(eventsQuerySchema, c.req.query(), 'The events cannot be read');
    const tenant = tenantOf(c.var.caller, query.tenant);
    const cursor = await startingPoint(c, query.cursor);
    return stream(c, tenant === undefined ? { cursor } : { cursor, tenant }, null);
  });

  routes.get('/generations/:id/events', async (c) => {
    const { caller } = c.var;
    const { cursor: asked } = check(eventsQuerySchema, c.req.query(), 'The events cannot be read');
    const cursor = await startingPoint(c, asked);
    const generation = await seen(reelhaul, caller, c.req.param('id'));
    return stream(c, { cursor, generationId: generation.id }, generation);
  });

  return {
    routes,
    close() {
      for (const ended of open.keys()) ended.abort();
    },
  };
}
