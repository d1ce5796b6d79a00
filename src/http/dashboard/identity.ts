/**
 * Access to the dashboard. With `DASHBOARD_USER` a visitor logs in by a form; scripts use Basic credentials of
 * the same accounts, or a bearer token of `API_TOKENS` that is not bound to a tenant. Without accounts this machine
 * only, as with the API. Nothing is changed for a page of another origin, whatever the browser sends along.
 */
import { randomBytes } from 'node:crypto';
import { getCookie } from 'hono/cookie';
import type { Context, MiddlewareHandler } from 'hono';
import { auth as readBasic } from 'hono/utils/basic-auth';
import type { Config } from '../../config/config.js';
import { findToken, isThisMachine, READING } from '../access.js';
import { readForm } from '../bodies.js';
import { HttpError } from '../problems.js';
import { csrfOf, type Sessions } from './sessions.js';

export const HOME = '/dashboard';
export const LOGIN = `${HOME}/login`;
export const COOKIE = 'reelhaul_session';

export interface Visitor {
  /** Shown on every page; null for a visitor on this machine without a login. */
  readonly name: string | null;
  readonly mayAct: boolean;
  /** What forms carry; null where no browser sends credentials by itself. */
  readonly csrf: string | null;
  /** Can the visitor log out? */
  readonly session: boolean;
}

export interface DashboardEnv {
  Variables: { visitor: Visitor };
}

/**
 * A request that changes something may come only from our own pages, or from a program. `Sec-Fetch-Site` decides where the
 * browser sends it: behind a proxy `Host` may lack the port, and a page without a referrer policy has the origin `null`.
 */
export function refuseForeign(c: Context, { PUBLIC_URL }: Config): void {
  if (READING.has(c.req.method)) return;
  const { origin, host, 'sec-fetch-site': site } = c.req.header();
  if (site === 'same-origin' || site === 'none') return;
  const hostOf = (url: string) => (URL.canParse(url) ? new URL(url).host : null);
  const own = origin === undefined || [host, hostOf(PUBLIC_URL)].includes(hostOf(origin) ?? 'null');
  if (own && site === undefined) return;
  throw new HttpError(403, 'foreign_origin', 'This did not come from a page of this dashboard.');
}

const sameText = (a: unknown, b: string) => typeof a === 'string' && a.length === b.length && a === b;

/** @throws HttpError when the form was not made for this visitor */
export function checkCsrf({ csrf }: Visitor, presented: unknown): void {
  if (csrf === null || sameText(presented, csrf)) return;
  throw new HttpError(403, 'stale_form', 'This form is not of your session any more. Load the page again.');
}

/** @throws HttpError for a visitor who may only look */
export function requireActor({ mayAct }: Visitor): void {
  if (!mayAct) throw new HttpError(403, 'read_only', 'You may look at everything, and change nothing.');
}

/** The fields of a form that changes something. @throws HttpError unless this visitor may, and the form is theirs */
export async function readActorForm(c: Context<DashboardEnv>): Promise<Record<string, unknown>> {
  requireActor(c.var.visitor);
  const form = await readForm(c);
  checkCsrf(c.var.visitor, form['csrf']);
  return form;
}

/** For the log: which visitor decided. */
export const actorOf = (c: Context<DashboardEnv>): string => c.var.visitor.name ?? 'this machine';

/** Counts the try first: otherwise many tries at the same moment would all be allowed. */
async function fromBasic(sessions: Sessions, c: Context, user: string, password: string) {
  await throttle(sessions, c, user);
  const account = sessions.findAccount(user, password);
  if (account === null) return null;
  await sessions.forgiveTry(c, user);
  return { name: account.user, mayAct: account.mayAct, csrf: null, session: false };
}

/** @throws HttpError when there were too many tries lately */
export async function throttle(sessions: Sessions, c: Context, user: string): Promise<void> {
  const waitSeconds = await sessions.countTry(c, user);
  if (waitSeconds > 0) {
    throw new HttpError(429, 'too_many_tries', `Too many tries to log in; again in ${waitSeconds} s.`, {
      'retry-after': String(waitSeconds),
    });
  }
}

async function fromHeader(sessions: Sessions, { API_TOKENS }: Config, c: Context, header: string) {
  const basic = readBasic(c.req.raw);
  if (basic) return fromBasic(sessions, c, basic.username, basic.password);
  const [, presented] = /^Bearer +(\S+) *$/i.exec(header) ?? [];
  const token = presented === undefined ? null : findToken(API_TOKENS, presented);
  if (token === null) return null;
  if (token.tenant !== null)
    throw new HttpError(
      403,
      'all_tenants_only',
      'The dashboard shows all tenants, and this token is of one.',
    );
  return { name: 'token', mayAct: !token.readOnly, csrf: null, session: false };
}

/** Refuses a visitor that is not known; sends a browser to the login. */
export function requireVisitor(sessions: Sessions, config: Config): MiddlewareHandler<DashboardEnv> {
  const localCsrf = csrfOf(randomBytes(32));
  const { accounts } = sessions;

  async function recognize(c: Context): Promise<Visitor | null> {
    const header = c.req.header('authorization');
    if (header !== undefined) {
      const visitor = await fromHeader(sessions, config, c, header);
      if (visitor) return visitor;
      const challenge = accounts.length > 0 ? 'Basic realm="reelhaul"' : 'Bearer realm="reelhaul"';
      throw new HttpError(401, 'unauthorized', 'These credentials are not known.', {
        'www-authenticate': challenge,
      });
    }
    if (accounts.length === 0) {
      if (isThisMachine(c, config)) return { name: null, mayAct: true, csrf: localCsrf, session: false };
      throw new HttpError(
        403,
        'local_only',
        'Without DASHBOARD_USER the dashboard answers only this machine, asked directly as localhost, and with PUBLIC_URL nothing at all.',
      );
    }
    const id = getCookie(c, COOKIE);
    const session = id === undefined ? null : await sessions.find(id);
    if (session === null) return null;
    const { user, mayAct } = session.account;
    return { name: user, mayAct, csrf: session.csrf, session: true };
  }

  return async (c, next) => {
    refuseForeign(c, config);
    const visitor = await recognize(c);
    if (visitor === null) {
      const wantsPage = READING.has(c.req.method) && (c.req.header('accept') ?? '').includes('text/html');
      if (!wantsPage) throw new HttpError(401, 'unauthorized', `Log in at ${LOGIN} first.`);
      // A link on another site: the browser sends a strict cookie only with requests from our own pages.
      if (c.req.header('sec-fetch-site') === 'cross-site')
        return c.html('<meta http-equiv="refresh" content="0">');
      const wanted = c.req.path + new URL(c.req.url).search;
      return c.redirect(`${LOGIN}?next=${encodeURIComponent(wanted)}`, 303);
    }
    c.set('visitor', visitor);
    await next();
  };
}
