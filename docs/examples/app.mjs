/**
 * A small web app that sells films: it enqueues what customers order, and is told when a film is ready.
 *
 *   REDIS_URL=redis://127.0.0.1:6379 NOTIFY_SECRET=whsec_… PORT=8080 SELF=https://films.example.com node app.mjs
 */
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { createReelhaul, InvalidInputError } from 'reelhaul';
import { Webhook } from 'standardwebhooks';

const reelhaul = await createReelhaul();
const webhook = new Webhook(process.env.NOTIFY_SECRET);
/** A real app keeps this in its database, and the ids of notifications it has seen as well. */
const films = new Map();
const seen = new Set();

const app = new Hono();

app.post('/orders/:order', async (c) => {
  const order = c.req.param('order');
  try {
    const { id } = await reelhaul.enqueue(await c.req.json(), {
      idempotencyKey: `order-${order}`,
      metadata: { order },
      notifyUrl: `${process.env.SELF}/hooks/reelhaul`,
    });
    films.set(order, { state: 'ordered' });
    return c.json({ generationId: id }, 202);
  } catch (error) {
    if (error instanceof InvalidInputError) return c.json({ problems: error.problems }, 422);
    throw error;
  }
});

app.post('/hooks/reelhaul', async (c) => {
  const body = await c.req.text();
  let told;
  try {
    // Over the very bytes that came: JSON that was parsed and written again has another signature.
    told = webhook.verify(body, c.req.header());
  } catch {
    return c.body(null, 401);
  }
  const id = c.req.header('webhook-id');
  if (!seen.has(id)) {
    const { state, metadata, assets, failure } = told.data;
    films.set(metadata.order, { state, video: assets?.video.key ?? null, failure });
    seen.add(id);
  }
  return c.body(null, 204);
});

app.get('/orders/:order', (c) => {
  const film = films.get(c.req.param('order'));
  return film ? c.json(film) : c.body(null, 404);
});

const server = serve({ fetch: app.fetch, port: Number(process.env.PORT) }, () => {
  process.stdout.write('listening\n');
});
process.once('SIGTERM', () => {
  server.close(() => void reelhaul.close());
});
