/** What apps were not told yet, what was given up, and the way to send that again. */
import { Hono } from 'hono';
import type { Reelhaul } from '../reelhaul.js';
import type { ApiEnv } from './access.js';
import { check } from './bodies.js';
import { requireAllTenants, seen } from './generations.js';
import { deadQuerySchema } from './schemas.js';

export function createNotificationRoutes(reelhaul: Reelhaul): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();

  routes.get('/notifications/dead', async (c) => {
    requireAllTenants(c.var.caller);
    const query = check(deadQuerySchema, c.req.query(), 'The notifications cannot be listed');
    return c.json(await reelhaul.deadNotifications(query));
  });

  routes.get('/generations/:id/notifications', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json({ notifications: await reelhaul.notifications(id) });
  });

  routes.post('/generations/:id/notifications/retry', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json({ retried: await reelhaul.retryNotification(id) });
  });

  return routes;
}
