/** The API put together: access, rate limit, time limit, and the form of every error. */
import { Hono, type MiddlewareHandler } from 'hono';
import { timeout } from 'hono/timeout';
import type { Hub } from '../pipeline/context.js';
import type { Reelhaul } from '../reelhaul.js';
import type { Storage } from '../storage/storage.js';
import { requireAccess, type ApiEnv } from './access.js';
import { createAssetRoutes, createLinkRoutes } from './assets.js';
import { addBasePath, pathBelow } from './base-path.js';
import { atMost, MAX_SMALL_BYTES } from './bodies.js';
import { PAGE_POLICY, renderDocs } from './docs-page.js';
import { createEventRoutes } from './events.js';
import { createGenerationRoutes } from './generations.js';
import { createInputRoutes, createUploadRoutes } from './inputs.js';
import { createLimitRoutes } from './limits.js';
import { createNotificationRoutes } from './notifications.js';
import { createOpenApiDocument, type OpenApiDocument } from './openapi.js';
import { answerProblem, describeError, HttpError, isAbandoned } from './problems.js';
import { createQueueCap } from './queue-cap.js';
import { limitRate } from './rate-limit.js';

/** From the last byte of the request to the first of the answer. */
const ANSWER_TIMEOUT_MS = 30_000;
/** An upload is read while it is answered: as long as the server reads requests. */
const UPLOAD_TIMEOUT_MS = 60_000;

export interface Api {
  readonly app: Hono<ApiEnv>;
  /** Opens the storage when it is first needed; `close` lets go of it. */
  readonly openedStorage: () => Promise<Storage>;
  /** Ends open event streams and lets go of the storage. */
  close(): Promise<void>;
}

/** Which methods a path of the document has; null when it has no such path. */
function methodsOf({ paths }: OpenApiDocument, path: string): string[] | null {
  const known = Object.entries(paths).find(([template]) =>
    new RegExp(`^${template.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path),
  );
  return known ? Object.keys(known[1]).map((method) => method.toUpperCase()) : null;
}

/** A slow handler goes on after its caller got the 504. An idempotency key makes asking again safe. */
const limitTime: MiddlewareHandler<ApiEnv> = (c, next) => {
  const limitMs = c.req.path.endsWith('/inputs') ? UPLOAD_TIMEOUT_MS : ANSWER_TIMEOUT_MS;
  const tooLate = () => new HttpError(504, 'timeout', `No answer within ${limitMs / 1000} s; ask again.`);
  return timeout(limitMs, tooLate)(c, next);
};

/** Orders have limits of their own; no other body is larger than this, whether its route reads it or not. */
const boundBody: MiddlewareHandler<ApiEnv> = (c, next) =>
  /\/(generations(\/batch)?|inputs)$/.test(c.req.path) ? next() : atMost(MAX_SMALL_BYTES)(c, next);

export function createApi(hub: Hub, reelhaul: Reelhaul): Api {
  const { config, log, redis } = hub;
  const { BASE_PATH: base } = config;
  const app = new Hono<ApiEnv>({ getPath: pathBelow(base) });
  app.use(addBasePath(base));
  let written: OpenApiDocument | undefined;
  let page: ReturnType<typeof renderDocs> | undefined;
  /** Written when it is asked for first, which takes 30 ms, and kept: anybody may ask for it. */
  const document = () => (written ??= createOpenApiDocument(base || '/'));
  const events = createEventRoutes(hub, reelhaul);
  const { openedStorage } = hub;

  app.get('/openapi.json', (c) => c.json(document()));
  app.get('/docs', (c) =>
    c.html((page ??= renderDocs(document())), 200, {
      'content-security-policy': PAGE_POLICY,
      'x-content-type-options': 'nosniff',
    }),
  );

  app.use('/v1/*', requireAccess(config), limitRate(hub));
  app.use('/v1/*', limitTime, boundBody);
  app.route('/v1', createGenerationRoutes(reelhaul, createQueueCap(hub), hub.config.TENANT_ADOPT));
  app.route('/v1', createAssetRoutes(reelhaul, openedStorage));
  app.route('/v1', createUploadRoutes(hub));
  app.route('/', createInputRoutes(hub));
  app.route('/', createLinkRoutes(hub, openedStorage));
  app.route('/v1', events.routes);
  app.route('/v1', createNotificationRoutes(reelhaul));
  app.route('/v1', createLimitRoutes(reelhaul));

  app.notFound((c) => {
    const allowed = methodsOf(document(), c.req.path);
    const error = allowed
      ? new HttpError(405, 'method_not_allowed', `Expected ${allowed.join(' or ')}.`, {
          allow: allowed.join(', '),
        })
      : new HttpError(404, 'not_found', 'There is nothing here; /docs shows what there is.');
    return answerProblem(c, error, redis);
  });
  app.onError((error, c) => {
    if (!describeError(error) && !isAbandoned(c))
      log.error({ err: error, method: c.req.method, path: c.req.path }, 'a request failed');
    return answerProblem(c, error, redis);
  });

  return {
    app,
    openedStorage,
    async close() {
      events.close();
      await hub.closeStorage();
    },
  };
}
