/** Limits and spend. Those of all belong to operators; a tenant sees what it has spent itself. */
import { Hono } from 'hono';
import type { Reelhaul } from '../reelhaul.js';
import type { ApiEnv } from './access.js';
import { check } from './bodies.js';
import { requireAllTenants } from './generations.js';
import { HttpError } from './problems.js';
import { spendQuerySchema } from './schemas.js';

export function createLimitRoutes(reelhaul: Reelhaul): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();

  routes.get('/limits', async (c) => {
    requireAllTenants(c.var.caller);
    return c.json(await reelhaul.limits());
  });

  routes.post('/limits/resume', async (c) => {
    requireAllTenants(c.var.caller);
    await reelhaul.resume();
    return c.json(await reelhaul.limits());
  });

  routes.get('/spend', async (c) => {
    const query = check(spendQuerySchema, c.req.query(), 'The spend cannot be read');
    const tenant = c.var.caller.tenant ?? query.tenant;
    if (query.tenant !== undefined && query.tenant !== tenant)
      throw new HttpError(403, 'forbidden', 'This token sees its own tenant only.');
    return c.json(await reelhaul.spend(tenant === undefined ? query : { ...query, tenant }));
  });

  return routes;
}
