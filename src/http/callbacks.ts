/**
 * Where the provider calls back: `POST /callbacks/runway/:generationId/:token`. The callback is a hint, the poll is the
 * truth: it brings the next poll forward, and for a generation whose submit is unclear it brings the task id.
 *
 * A wrong token costs one HMAC and touches neither Redis nor the body; unknown ids, duplicates and any order of
 * arrival do no harm.
 */
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Hub } from '../pipeline/context.js';
import type { Hinted } from '../polling/poll-state.js';
import { soonestPollMs } from '../polling/schedule.js';
import { adoptTask, type Adoption } from '../pipeline/adopt-task.js';
import { callbackTokenMatches, keepCallback, readCallback } from '../provider/callback.js';
import { isGenerationId } from './schemas.js';

const MAX_BODY_BYTES = 64 * 1024;

export function createCallbackRoutes(hub: Hub): Hono {
  const routes = new Hono();
  routes.post(
    '/callbacks/runway/:generationId/:token',
    async (c, next) => {
      const { generationId, token } = c.req.param();
      const known =
        isGenerationId(generationId) &&
        hub.config.CALLBACK_SECRET.some((secret) => callbackTokenMatches(secret, generationId, token));
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
  const { taskId, goingOn } = readCallback(body);
  hub.log.info({ generationId, taskId, goingOn }, 'callback received');
  // The hint is written down first: whatever happens next to the generation, its next step finds it.
  const hinted = goingOn ? null : await hub.following.hint(generationId, taskId);
  let adoption: Adoption | null = null;
  if (taskId !== null) {
    const answer = keepCallback(body, { at: hub.now(), apiKey: hub.config.COMETAPI_KEY });
    adoption = await adoptTask(hub, generationId, taskId, { source: 'callback', answer });
  }
  if (hinted !== null && (adoption === null || adoption === 'known')) await follow(hub, generationId, hinted);
}

/** Brings the poll forward. A generation that is not followed yet finds the hint when it is. */
async function follow(hub: Hub, generationId: string, { state, first, polledAt }: Hinted): Promise<void> {
  if (state === 'generating' || state === 'expired') {
    const delayMs = soonestPollMs(polledAt, hub.now());
    await hub.queues.hastenTo('poll', generationId, delayMs);
  } else if (first && (state === 'archiving' || state === 'succeeded' || state === 'failed')) {
    await hub.pacing.learnArrival();
  }
}
