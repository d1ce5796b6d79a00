/**
 * The server below a path of its host, `BASE_PATH`, as behind a proxy that serves other things as well. Routes know nothing
 * of it: it is taken off what is asked, if the proxy has not done so, and put before the addresses that are answered.
 */
import type { Context, MiddlewareHandler } from 'hono';
import { getPath } from 'hono/utils/url';

/** The path that routes see. */
export function pathBelow(base: string): (request: Request) => string {
  return (request) => {
    const path = getPath(request);
    if (base === '' || !(path === base || path.startsWith(`${base}/`))) return path;
    return path.slice(base.length) || '/';
  };
}

/** The request as it was before a proxy took the path off. */
export function withBasePath(c: Context, base: string): Request {
  if (base === '') return c.req.raw;
  const url = new URL(c.req.url);
  if (url.pathname === base || url.pathname.startsWith(`${base}/`)) return c.req.raw;
  url.pathname = base + url.pathname;
  return new Request(url, c.req.raw);
}

/**
 * Puts the path before addresses of this server, in `Location` and in pages. A text of others cannot look like one of
 * these attributes: in pages its quotes are escaped.
 */
export function addBasePath(base: string): MiddlewareHandler {
  const attribute = new RegExp(`(\\s(?:href|src|action|poster)=")/(?!/|${base.slice(1)}(?:/|"))`, 'g');
  return async (c, next) => {
    await next();
    if (base === '') return;
    const location = c.res.headers.get('location');
    if (location && /^\/(?!\/)/.test(location)) c.res.headers.set('location', base + location);
    // A 304 has the headers of the page, and no body to change.
    if (c.res.status === 304 || !c.res.headers.get('content-type')?.startsWith('text/html')) return;
    const page = (await c.res.text()).replaceAll(attribute, `$1${base}/`);
    const headers = new Headers(c.res.headers);
    headers.delete('content-length');
    c.res = new Response(page, { status: c.res.status, headers });
  };
}
