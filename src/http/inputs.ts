/**
 * Inputs: `POST /v1/inputs` takes the bytes of a picture, `GET /inputs/:token` gives the provider what generations start
 * from. The token is the proof there: it is never logged, and good until its generation is over.
 */
import { Readable } from 'node:stream';
import { Hono, type Context } from 'hono';
import { MAX_INPUT_BYTES, type InputField } from '../generation/inputs.js';
import type { GenerationRecord } from '../generation/record.js';
import { isTerminal } from '../generation/states.js';
import { HEAD_BYTES, sniff } from '../media/sniff.js';
import type { Hub } from '../pipeline/context.js';
import { findInput } from '../pipeline/input-files.js';
import { addPicture } from '../pipeline/inputs.js';
import { readInputToken } from '../provider/input-link.js';
import type { ApiEnv } from './access.js';
import { serveFile } from './assets.js';
import { createCounting } from './counting.js';
import { tenantOf } from './generations.js';
import { HttpError, isAbandoned, problemOf } from './problems.js';

/** Requests for one input a minute. The provider needs a few. */
const MOST_A_MINUTE = 120;

export function createUploadRoutes(hub: Hub): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();
  routes.post('/inputs', async (c) => {
    const tenant = tenantOf(c.var.caller, c.req.query('tenant')) ?? 'default';
    const tooLarge = () =>
      // The rest of the body is not read: the connection cannot be used again.
      new HttpError(413, 'body_too_large', `Expected a picture of at most ${MAX_INPUT_BYTES} bytes.`, {
        connection: 'close',
      });
    if (Number(c.req.header('content-length') ?? 0) > MAX_INPUT_BYTES) throw tooLarge();
    const { body } = c.req.raw;
    const source = body === null ? Readable.from([]) : Readable.fromWeb(body);
    let sizeBytes = 0;
    source.on('data', (chunk: Buffer) => (sizeBytes += chunk.length)).pause();
    try {
      const { input, isNew } = await addPicture(hub, tenant, source);
      return c.json(input, isNew ? 201 : 200);
    } catch (error) {
      throw sizeBytes > MAX_INPUT_BYTES ? tooLarge() : error;
    }
  });
  return routes;
}

/** The file of an input, as it is served. @throws HttpError 404 when there is none */
export async function serveInput(
  c: Context,
  hub: Hub,
  record: GenerationRecord,
  field: InputField,
): Promise<Response> {
  const input = record.request[field];
  const found = input === undefined || typeof input === 'string' ? null : await findInput(hub, record, input);
  if (found?.kind !== 'file') throw gone();
  const { key, sha256, contentType } = found.file;
  const storage = await hub.openedStorage();
  if (contentType !== null) return serveFile(c, storage, { key, sha256, contentType });
  if ((await storage.stat(key)) === null) throw gone();
  const head = Buffer.concat(await (await storage.read(key, { start: 0, end: HEAD_BYTES - 1 })).toArray());
  return serveFile(c, storage, { key, sha256, contentType: pictureType(head) });
}

/** Nothing but a picture is given out, whatever lies there by now. */
function pictureType(head: Buffer): string {
  try {
    return sniff(head, 'image').contentType;
  } catch {
    throw gone();
  }
}

const gone = () => new HttpError(404, 'not_found', 'There is nothing here, or not any more.');

/** `GET /inputs/:token`, below PUBLIC_URL. */
export function createInputRoutes(hub: Hub): Hono {
  const { config, store, redis, now, log } = hub;
  const counting = createCounting(redis, now);
  const routes = new Hono();

  /** Until the generation is over; one that expired still has a task while its late check goes on. */
  async function isGood({ id, state }: GenerationRecord): Promise<boolean> {
    if (state !== 'expired') return !isTerminal(state);
    return (await redis.zscore(store.keys.live, id)) !== null;
  }

  async function answer(c: Context): Promise<Response> {
    const target = readInputToken(config.CALLBACK_SECRET, c.req.param('token') ?? '');
    if (target === null) throw gone();
    const { generationId, field } = target;
    const { count, waitSeconds } = await counting.add(
      `${config.REDIS_PREFIX}:rate:input:${generationId}:${field}`,
    );
    if (count > MOST_A_MINUTE)
      throw new HttpError(429, 'rate_limited', `Expected at most ${MOST_A_MINUTE} requests per minute.`, {
        'retry-after': String(waitSeconds),
      });
    const record = await store.get(generationId);
    if (record === null || !(await isGood(record))) throw gone();
    return serveInput(c, hub, record, field);
  }

  routes.get('/inputs/:token', async (c) => {
    try {
      return await answer(c);
    } catch (error) {
      if (error instanceof HttpError) throw error;
      // Here and not where all others are: that line has the path in it, and with it the token.
      if (!isAbandoned(c)) log.error({ err: error }, 'an input could not be served');
      const { status, code, detail } = problemOf(error, redis);
      throw new HttpError(status === 500 ? 500 : 503, code, detail);
    }
  });
  return routes;
}
