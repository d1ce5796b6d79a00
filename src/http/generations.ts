/** `/v1/generations`: the verbs of the library over HTTP, each within the caller's tenant. */
import { setImmediate as otherRequests } from 'node:timers/promises';
import { Hono } from 'hono';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Generation } from '../generation/record.js';
import type { Enqueued, EnqueueItem, EnqueueResult, Reelhaul } from '../reelhaul.js';
import type { ApiEnv, Caller } from './access.js';
import { checkSyntax, parseItem, sliced, splitBatch } from './batch.js';
import { atMost, check, MAX_BATCH_BYTES, MAX_BODY_BYTES, readJson, readJsonText } from './bodies.js';
import { describeError, HttpError } from './problems.js';
import type { QueueCap } from './queue-cap.js';
import { decisionSchema, eraseQuerySchema, isGenerationId, listQuerySchema, retrySchema } from './schemas.js';

/** The generation, if this caller may see it. One of another tenant is as good as none. @throws NotFoundError */
export async function seen(reelhaul: Reelhaul, caller: Caller, generationId: string): Promise<Generation> {
  if (!isGenerationId(generationId)) throw new NotFoundError(generationId.slice(0, 64));
  try {
    const generation = await reelhaul.get(generationId);
    if (caller.tenant === null || generation.tenant === caller.tenant) return generation;
  } catch (error) {
    // Whose an erased one was is not known any more.
    if (caller.tenant === null || !(error instanceof NotFoundError)) throw error;
  }
  throw new NotFoundError(generationId);
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

const enqueued = ({ generation, ignored }: Extract<EnqueueResult, { ok: true }>): Enqueued =>
  ignored.length === 0 ? generation : { ...generation, ignored };

const isRefusal = (result: EnqueueResult): result is Extract<EnqueueResult, { ok: false }> => !result.ok;

/** A name that is none is left to the library, which says so. */
const tenantIn = ({ tenant }: EnqueueItem): string => (typeof tenant === 'string' ? tenant : 'default');

/** An item that is refused already. */
interface Refused {
  readonly error: Error;
}

function readBatchItem(caller: Caller, text: string): Item | Refused {
  const parsed = parseItem(text);
  try {
    if (parsed) return readItem(caller, parsed.body);
    throw new InvalidInputError('The generation was not enqueued', [
      { path: '', message: `expected at most ${MAX_BODY_BYTES} bytes` },
    ]);
  } catch (error) {
    if (error instanceof InvalidInputError) return { error };
    throw error;
  }
}

/** What becomes of some items of a batch, each as JSON. */
async function enqueueSlice(
  reelhaul: Reelhaul,
  cap: QueueCap,
  caller: Caller,
  texts: readonly string[],
): Promise<string[]> {
  const read = texts.map((text) => readBatchItem(caller, text));
  const tenants = new Set(read.flatMap((one) => ('error' in one ? [] : [tenantIn(one.item)])));
  const full = new Map<string, Error | null>();
  for (const tenant of tenants) full.set(tenant, await cap(tenant));
  const items = read.map((one): Item | Refused => {
    const error = 'error' in one ? null : (full.get(tenantIn(one.item)) ?? null);
    return error === null ? one : { error };
  });
  const results = await reelhaul.enqueueMany(items.flatMap((one) => ('error' in one ? [] : [one.item])));
  let next = 0;
  return items.map((one) => {
    const result = 'error' in one ? null : results[next++];
    if (result?.ok)
      return JSON.stringify({ status: result.replayed ? 200 : 201, generation: enqueued(result) });
    const error = 'error' in one ? one.error : inTermsOfBody(result!.error, one.bare);
    const problem = describeError(error);
    if (!problem) throw error;
    return JSON.stringify({ status: problem.status, problem });
  });
}

export function createGenerationRoutes(
  reelhaul: Reelhaul,
  cap: QueueCap,
  tenantAdopt: boolean,
): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();

  routes.post('/generations', atMost(MAX_BODY_BYTES), async (c) => {
    const { item, bare } = readItem(c.var.caller, await readJson(c), c.req.header('idempotency-key'));
    const full = await cap(tenantIn(item));
    if (full) throw full;
    const [result] = await reelhaul.enqueueMany([item]);
    if (!result || isRefusal(result)) throw inTermsOfBody(result?.error ?? new Error('no result'), bare);
    const { generation, replayed } = result;
    return c.json(enqueued(result), replayed ? 200 : 201, { location: `/v1/generations/${generation.id}` });
  });

  routes.post('/generations/batch', atMost(MAX_BATCH_BYTES), async (c) => {
    const texts = await splitBatch(await readJsonText(c));
    await checkSyntax(texts);
    await c.var.countItems(texts.length);
    const results: string[] = [];
    for (const slice of sliced(texts)) {
      results.push(...(await enqueueSlice(reelhaul, cap, c.var.caller, slice)));
      await otherRequests();
    }
    return c.body(`{"results":[${results.join(',')}]}`, 200, { 'content-type': 'application/json' });
  });

  routes.get('/generations', async (c) => {
    const query = check(listQuerySchema, c.req.query(), 'The generations cannot be listed');
    const tenant = tenantOf(c.var.caller, query.tenant);
    return c.json(await reelhaul.list(tenant === undefined ? query : { ...query, tenant }));
  });

  routes.get('/generations/:id', async (c) => c.json(await seen(reelhaul, c.var.caller, c.req.param('id'))));

  routes.delete('/generations/:id', async (c) => {
    const { evenIfBilled = false } = check(eraseQuerySchema, c.req.query(), 'Nothing was erased');
    const id = c.req.param('id');
    if (c.var.caller.tenant !== null) await seen(reelhaul, c.var.caller, id);
    else if (!isGenerationId(id)) throw new NotFoundError(id.slice(0, 64));
    return c.json(await reelhaul.erase(id, { evenIfBilled }));
  });

  routes.delete('/tenants/:tenant', async (c) => {
    requireAllTenants(c.var.caller);
    const { evenIfBilled = false } = check(eraseQuerySchema, c.req.query(), 'Nothing was erased');
    return c.json(await reelhaul.eraseTenant(c.req.param('tenant'), { evenIfBilled }));
  });

  routes.get('/generations/:id/answers', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json({ answers: await reelhaul.answers(id) });
  });

  routes.get('/generations/:id/outlook', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json(await reelhaul.outlook(id));
  });

  routes.post('/generations/:id/cancel', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    return c.json(await reelhaul.cancel(id));
  });

  routes.post('/generations/:id/retry', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    const { allowRebill } = check(retrySchema, await readJson(c, {}), 'The generation was not retried');
    return c.json(await reelhaul.retry(id, { allowRebill: allowRebill === true }));
  });

  routes.post('/generations/:id/decision', async (c) => {
    const { id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    const decision = check(decisionSchema, await readJson(c), 'Nothing was decided');
    // All tenants' tasks belong to one account: a tenant could name that of another.
    if ('adopt' in decision && !tenantAdopt) requireAllTenants(c.var.caller);
    return c.json(await reelhaul.decide(id, decision));
  });

  return routes;
}

/** For callers whose token is bound to one tenant. */
export function requireAllTenants(caller: Caller): void {
  if (caller.tenant !== null)
    throw new HttpError(403, 'all_tenants_only', 'This needs a token that is not bound to a tenant.');
}
