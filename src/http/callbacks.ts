/**
 * Where the provider calls back: `POST /callbacks/runway/:generationId/:token`. The callback is a hint, the poll is the
 * truth: it brings the next poll forward, and for a generation whose submit is unclear it brings the task id.
 *
 * A wrong token costs one HMAC and touches neither Redis nor the body; unknown ids, duplicates and any order of
 * arrival do no harm.
 */
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Hub } from '../hub.js';
import { adoptTask } from '../pipeline.js';
import { callbackTokenMatches, keepCallback, readCallback } from '../provider/callback.js';

const MAX_BODY_BYTES = 64 * 1024;
/** Callbacks of one generation that come closer together than this bring forward one poll. */
const HASTEN_AT_MOST_EVERY_MS = 1000;

const GENERATION_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function createCallbackRoutes(hub: Hub): Hono {
  const routes = new Hono();
  routes.post(
    '/callbacks/runway/:generationId/:token',
    async (c, next) => {
      const { generationId, token } = c.req.param();
      const known =
        GENERATION_ID.test(generationId) &&
        callbackTokenMatches(hub.config.CALLBACK_SECRET, generationId, token);
      if (!known) return c.body(null, 404);
      await next();
    },
    bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (c) => c.body(null, 413) }),
    async (c) => {
      try {
        await receive(hub, c.req.param('generationId'), await c.req.text());
        return c.body(null, 204);
      } catch (error) {
        // Not written down: a sender that repeats its calls should repeat this one.
        hub.log.error(
          { generationId: c.req.param('generationId'), err: error },
          'a callback could not be saved',
        );
        return c.body(null, 503);
      }
    },
  );
  return routes;
}

async function receive(hub: Hub, generationId: string, body: string): Promise<void> {
  const { taskId } = readCallback(body);
  hub.log.info({ generationId, taskId }, 'callback received');
  if (taskId === null) {
    await hasten(hub, generationId);
    return;
  }
  const answer = keepCallback(body, { at: hub.now(), apiKey: hub.config.COMETAPI_KEY });
  const adoption = await adoptTask(hub, generationId, taskId, { source: 'callback', answer });
  if (adoption === 'known') await hasten(hub, generationId);
}

async function hasten(hub: Hub, generationId: string): Promise<void> {
  const record = await hub.store.get(generationId);
  if (record?.state !== 'generating' && record?.state !== 'expired') return;
  const key = `${hub.config.REDIS_PREFIX}:hastened:${generationId}`;
  const first = await hub.redis.set(key, '1', 'PX', HASTEN_AT_MOST_EVERY_MS, 'NX');
  if (first === 'OK') await hub.queues.hasten('poll', generationId);
}
