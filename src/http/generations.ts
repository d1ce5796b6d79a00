/** `/v1/generations`: the verbs of the library over HTTP, each within the caller's tenant. */
import { Hono } from 'hono';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Generation } from '../generation/record.js';
import type { EnqueueItem, EnqueueResult, ListQuery, Reelhaul } from '../reelhaul.js';
import type { ApiEnv, Caller } from './access.js';
import { atMost, check, MAX_BATCH_BYTES, MAX_BODY_BYTES, readJson } from './bodies.js';
import { describeError, HttpError } from './problems.js';
import { batchSchema, decisionSchema, isGenerationId, listQuerySchema, retrySchema } from './schemas.js';

/** The generation, if this caller may see it. One of another tenant is as good as none. @throws NotFoundError */
export async function seen(reelhaul: Reelhaul, caller: Caller, generationId: string): Promise<Generation> {
  if (!isGenerationId(generationId)) throw new NotFoundError(generationId.slice(0, 64));
  const generation = await reelhaul.get(generationId);
  if (caller.tenant !== null && generation.tenant !== caller.tenant) throw new NotFoundError(generationId);
  return generation;
}

/** The tenant to look at: the caller's own, or the one asked for. @throws InvalidInputError for another's */
export function tenantOf(caller: Caller, wanted: string | undefined): string | undefined {
  if (caller.tenant === null) return wanted;
  if (wanted === undefined || wanted === caller.tenant) return caller.tenant;
  throw new InvalidInputError('The token is for another tenant', [
    { path: 'tenant', message: `expected ${JSON.stringify(caller.tenant)} or nothing` },
  ]);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

interface Item {
  readonly item: EnqueueItem;
  /** A bare request, without `request` around it. */
  readonly bare: boolean;
}

/** `{ request, …options }` or a bare request, for this caller. What is in them is checked by the library. */
function readItem(caller: Caller, body: unknown, headerKey?: string): Item {
  if (!isObject(body)) {
    throw new InvalidInputError('The generation was not enqueued', [
      { path: 'request', message: 'expected an object: a request, or { "request": …, options }' },
    ]);
  }
  const bare = !Object.hasOwn(body, 'request');
  const order = bare ? { request: body } : body;
  const { tenant, idempotencyKey } = order as { tenant?: unknown; idempotencyKey?: unknown };
  if (headerKey !== undefined && idempotencyKey !== undefined && idempotencyKey !== headerKey) {
    throw new InvalidInputError('The generation was not enqueued', [
      { path: 'idempotencyKey', message: 'expected the same as the header Idempotency-Key, or nothing' },
    ]);
  }
  const own = caller.tenant === null ? {} : { tenant: tenantOf(caller, tenant as string | undefined) };
  const key = headerKey === undefined ? {} : { idempotencyKey: headerKey };
  return { item: { ...order, ...own, ...key } as EnqueueItem, bare };
}

/** Paths as they stand in the body that was sent, rather than in the library's two arguments. */
function inTermsOfBody(error: Error, bare: boolean): Error {
  if (!(error instanceof InvalidInputError)) return error;
  const [headline = ''] = error.message.split(':\n');
  const problems = error.problems.map(({ path, message }) => {
    const inner = path.replace(/^options(\.|$)/, '');
    const own = bare ? path.replace(/^request\./, '') : path;
    return { path: path.startsWith('options') ? inner : own, message };
  });
  return new InvalidInputError(headline, problems);
}

const isRefusal = (result: EnqueueResult): result is Extract<EnqueueResult, { ok: false }> => !result.ok;

export function createGenerationRoutes(reelhaul: Reelhaul): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();

  routes.post('/generations', atMost(MAX_BODY_BYTES), async (c) => {
    const { item, bare } = readItem(c.var.caller, await readJson(c), c.req.header('idempotency-key'));
    const [result] = await reelhaul.enqueueMany([item]);
    if (!result || isRefusal(result)) throw inTermsOfBody(result?.error ?? new Error('no result'), bare);
    const { generation, replayed } = result;
    return c.json(generation, replayed ? 200 : 201, { location: `/v1/generations/${generation.id}` });
  });

  routes.post('/generations/batch', atMost(MAX_BATCH_BYTES), async (c) => {
    const { items } = check(batchSchema, await readJson(c), 'Nothing was enqueued');
    const read = items.map((body): Item | Error => {
      try {
        return readItem(c.var.caller, body);
      } catch (error) {
        if (error instanceof InvalidInputError) return error;
        throw error;
      }
    });
    const results = await reelhaul.enqueueMany(
      read.flatMap((one) => (one instanceof Error ? [] : [one.item])),
    );
    let next = 0;
    return c.json({
      results: read.map((one) => {
        const result = one instanceof Error ? null : results[next++];
        if (result?.ok) return { status: result.replayed ? 200 : 201, generation: result.generation };
        const error = one instanceof Error ? one : inTermsOfBody(result!.error, one.bare);
        const problem = describeError(error);
        if (!problem) throw error;
        return { status: problem.status, problem };
      }),
    });
  });

  routes.get('/generations', async (c) => {
    const query = check(listQuerySchema, c.req.query(), 'The generations cannot be listed');
    const tenant = tenantOf(c.var.caller, query.tenant);
    const listing = Object.fromEntries(
      Object.entries({ ...query, tenant }).filter(([, value]) => value !== undefined),
    ) as ListQuery;
    return c.json(await reelhaul.list(listing));
  });

  routes.get('/generations/:id', async (c) => c.json(await seen(reelhaul, c.var.caller, c.req.param('id'))));

  routes.get('/generations/:id/answers', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json({ answers: await reelhaul.answers(id) });
  });

  routes.post('/generations/:id/cancel', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json(await reelhaul.cancel(id));
  });

  routes.post('/generations/:id/retry', atMost(MAX_BODY_BYTES), async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    const { allowRebill } = check(retrySchema, await readJson(c, {}), 'The generation was not retried');
    return c.json(await reelhaul.retry(id, { allowRebill: allowRebill === true }));
  });

  routes.post('/generations/:id/decision', atMost(MAX_BODY_BYTES), async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    const decision = check(decisionSchema, await readJson(c), 'Nothing was decided');
    return c.json(await reelhaul.decide(id, decision));
  });

  return routes;
}

/** For callers whose token is bound to one tenant. */
export function requireAllTenants(caller: Caller): void {
  if (caller.tenant !== null)
    throw new HttpError(403, 'all_tenants_only', 'This needs a token that is not bound to a tenant.');
}
