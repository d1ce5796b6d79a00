/** The login page, and the way out again. */
import { Hono, type Context } from 'hono';
import { deleteCookie, getCookie, setCookie } from 'hono/cookie';
import { html } from 'hono/html';
import type { Config } from '../../config/config.js';
import { atMost, MAX_SMALL_BYTES, readForm } from '../bodies.js';
import { HttpError } from '../problems.js';
import { bare, type Html } from './layout.js';
import { LONGEST_MS, type Sessions } from './sessions.js';
import {
  checkCsrf,
  COOKIE,
  HOME,
  LOGIN,
  refuseForeign,
  requireVisitor,
  throttle,
  type DashboardEnv,
} from './identity.js';

const textOf = (field: unknown): string => (typeof field === 'string' ? field : '');

/** Only within the dashboard: no link leads to another host. */
function safeNext(wanted: unknown): string {
  if (typeof wanted !== 'string' || !URL.canParse(wanted, 'http://here')) return HOME;
  const { origin, pathname, search } = new URL(wanted, 'http://here');
  const inside = pathname === HOME || pathname.startsWith(`${HOME}/`);
  return origin === 'http://here' && inside && !pathname.startsWith(LOGIN) ? pathname + search : HOME;
}

/** Did the browser come by https? Behind a proxy only the proxy knows; a client that lies weakens only its own cookie. */
function isSecure(c: Context, { PUBLIC_URL }: Config): boolean {
  const said = c.req.header('x-forwarded-proto')?.split(',')[0]?.trim();
  if (said !== undefined) return said === 'https';
  return PUBLIC_URL.startsWith('https:') && new URL(PUBLIC_URL).host === c.req.header('host');
}

function loginPage(next: string, problem: string | null): Html {
  return bare(
    'Log in',
    html`<main class="login">
      <h1>Log in to <span class="wordmark">reelhaul</span></h1>
      ${problem === null ? '' : html`<p class="notice bad" role="alert">${problem}</p>`}
      <form method="post" action="${LOGIN}">
        <input type="hidden" name="next" value="${next}" />
        <label>Name <input name="user" autocomplete="username" required autofocus /></label>
        <label
          >Password <input name="password" type="password" autocomplete="current-password" required
        /></label>
        <button class="primary">Log in</button>
      </form>
    </main>`,
  );
}

export function createLoginRoutes(sessions: Sessions, config: Config): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  const cookieOptions = (c: Context) =>
    ({
      path: config.BASE_PATH + HOME,
      httpOnly: true,
      sameSite: 'Strict',
      secure: isSecure(c, config),
    }) as const;

  routes.use(LOGIN, async (c, next) => {
    if (sessions.accounts.length === 0) return c.redirect(HOME, 303);
    refuseForeign(c, config);
    await next();
  });

  routes.get(LOGIN, (c) => c.html(loginPage(safeNext(c.req.query('next')), null)));

  routes.post(LOGIN, atMost(MAX_SMALL_BYTES), async (c) => {
    const form = await readForm(c);
    const next = safeNext(form['next']);
    const user = textOf(form['user']);
    try {
      await throttle(sessions, c, user);
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      return c.html(loginPage(next, error.message), error.status, error.headers);
    }
    const account = sessions.findAccount(user, textOf(form['password']));
    if (account === null) return c.html(loginPage(next, 'Name or password is not right.'), 401);
    await sessions.forgiveTry(c, user);
    const before = getCookie(c, COOKIE);
    if (before !== undefined) await sessions.end(before);
    // Redis ends an idle session earlier; a cookie that expired with it would end a session in use.
    setCookie(c, COOKIE, await sessions.open(account), { ...cookieOptions(c), maxAge: LONGEST_MS / 1000 });
    return c.redirect(next, 303);
  });

  routes.post(`${HOME}/logout`, requireVisitor(sessions, config), atMost(MAX_SMALL_BYTES), async (c) => {
    checkCsrf(c.var.visitor, (await readForm(c))['csrf']);
    const id = getCookie(c, COOKIE);
    if (id !== undefined) await sessions.end(id);
    deleteCookie(c, COOKIE, cookieOptions(c));
    return c.redirect(LOGIN, 303);
  });

  return routes;
}
