/** The dashboard put together: access, the pages, and the headers that keep texts of apps from running as scripts. */
import { Hono, type Context } from 'hono';
import { etag } from 'hono/etag';
import { html } from 'hono/html';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { NotFoundError } from '../../errors.js';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Storage } from '../../storage/storage.js';
import type { Fleet } from '../../telemetry/snapshot.js';
import type { Health } from '../../telemetry/health.js';
import { isPublic, READING } from '../access.js';
import { atMost, MAX_BODY_BYTES } from '../bodies.js';
import { describeError, HttpError, isAbandoned, problemOf } from '../problems.js';
import { createClientFileRoutes } from './client-files.js';
import { createGenerationRoutes } from './generation.js';
import { createListRoutes } from './generations.js';
import { createInboxRoutes } from './inbox.js';
import { bare, layout } from './layout.js';
import { createResumeRoutes } from './limits.js';
import { createLoginRoutes } from './login.js';
import { createOverviewRoutes } from './overview.js';
import { patience } from './read-deadline.js';
import { createQueueRoutes } from './queues.js';
import { createSessions } from './sessions.js';
import { HOME, LOGIN, requireVisitor, type DashboardEnv } from './identity.js';

const POLICY = [
  "default-src 'none'",
  ...['script', 'style', 'img', 'media', 'connect'].map((kind) => `${kind}-src 'self'`),
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

/** While Redis is away. */
const ASK_AGAIN_SECONDS = 5;

export interface DashboardDeps {
  readonly hub: Hub;
  readonly reelhaul: Reelhaul;
  readonly fleet: Fleet;
  readonly health: Pick<Health, 'refusals'>;
  /** Opens the storage when it is first needed. */
  readonly openedStorage: () => Promise<Storage>;
}

function errorTitle(method: string, status: number): string {
  if (status === 404) return 'Not found';
  if (status >= 500) return 'It did not work';
  return READING.has(method) ? 'That cannot be shown' : 'That was not done';
}

function errorPage(c: Context<DashboardEnv>, status: number, text: string): Response | Promise<Response> {
  const title = errorTitle(c.req.method, status);
  // The list is where a generation is searched, and where a wrong filter is corrected.
  const back = c.req.path.startsWith(`${HOME}/generations`)
    ? html`<a class="button" href="${HOME}/generations">To the generations</a>`
    : html`<a class="button" href="${HOME}">To the overview</a>`;
  // Set only after the login.
  const visitor = c.var.visitor as DashboardEnv['Variables']['visitor'] | undefined;
  const body = html`<h1>${title}</h1>
    <p class="notice bad" role="alert">${text}</p>
    <p>${back}</p>`;
  const page = visitor
    ? layout({ title, at: null, visitor, figures: null, isRenewed: false, body })
    : bare(title, html`<main class="login">${body}</main>`);
  return c.html(page, status as ContentfulStatusCode);
}

export function createDashboard({
  hub,
  reelhaul,
  fleet,
  health,
  openedStorage,
}: DashboardDeps): Hono<DashboardEnv> {
  const { config, log, redis } = hub;
  const app = new Hono<DashboardEnv>();
  const sessions = createSessions(hub);

  app.use(`${HOME}/*`, async (c, next) => {
    await next();
    for (const [name, value] of Object.entries(HEADERS))
      if (!c.res.headers.has(name)) c.res.headers.set(name, value);
    if (!c.res.headers.has('cache-control')) c.res.headers.set('cache-control', 'no-store');
  });
  app.route('/', createClientFileRoutes());
  app.use(`${HOME}/*`, patience());
  app.route('/', createLoginRoutes(sessions, config));
  app.use(`${HOME}/*`, requireVisitor(sessions, config), atMost(MAX_BODY_BYTES));
  for (const page of [HOME, `${HOME}/generations`, `${HOME}/generations/:id`, `${HOME}/inbox`])
    app.use(page, etag());
  app.route('/', createOverviewRoutes(hub, reelhaul, fleet, health));
  app.route('/', createListRoutes(hub, reelhaul, fleet));
  app.route('/', createGenerationRoutes(hub, reelhaul, fleet, openedStorage));
  app.route('/', createInboxRoutes(hub, reelhaul, fleet));
  app.route('/', createResumeRoutes(hub, reelhaul));
  app.route('/', createQueueRoutes(hub));
  app.get('/', (c) => c.redirect(HOME));
  app.get(`${HOME}/`, (c) => c.redirect(HOME));
  app.all(`${HOME}/*`, () => {
    throw new HttpError(404, 'not_found', 'There is no such page.');
  });

  app.onError((error, c) => {
    if (!describeError(error) && !isAbandoned(c))
      log.error({ err: error, method: c.req.method, path: c.req.path }, 'a page failed');
    const { status, code, detail, problems } = problemOf(error, redis);
    const more = problems?.map(({ path, message }) => `${path}: ${message}`).join('; ');
    const comesBack = status === 503 && READING.has(c.req.method);
    const said =
      comesBack && code === 'unavailable'
        ? 'Redis cannot be reached just now. The page comes back by itself.'
        : detail;
    const text =
      error instanceof NotFoundError
        ? 'There is no such generation, or it was forgotten since.'
        : [said, more].filter(Boolean).join(': ');
    if (error instanceof HttpError)
      for (const [name, value] of Object.entries(error.headers)) c.header(name, value);
    // The browser loads the wanted page again by itself.
    if (comesBack) c.header('refresh', String(ASK_AGAIN_SECONDS));
    const wantsPage = (c.req.header('accept') ?? '').includes('text/html');
    return wantsPage
      ? errorPage(c, status, text)
      : c.json({ status, code, detail: text }, status as ContentfulStatusCode);
  });

  const open = sessions.accounts.length === 0;
  if (open)
    log.warn(
      isPublic(config)
        ? 'DASHBOARD_USER is not set, and PUBLIC_URL is: the dashboard answers nothing'
        : 'DASHBOARD_USER is not set: the dashboard answers only to this machine, asked as localhost',
    );
  log.info({ dashboard: HOME, login: open ? 'none' : LOGIN }, 'dashboard ready');
  return app;
}
