/**
 * Pages ask for themselves again and again, and most of the time nothing has changed: then they are told so in a line,
 * rather than sent whole. A page knows its tag from its own first line, since a script is not shown the headers with
 * which its page came.
 */
import { createHash } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';

const tagOf = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 22);

/** Tags pages that went well; one that the asker has already is answered with 304. */
export function unchanged(): MiddlewareHandler {
  return async (c, next) => {
    await next();
    const isPage = c.req.method === 'GET' && c.res.status === 200;
    if (!isPage || !c.res.headers.get('content-type')?.startsWith('text/html')) return;
    const text = await c.res.text();
    const tag = tagOf(text);
    const headers = new Headers(c.res.headers);
    headers.delete('content-length');
    headers.set('etag', `"${tag}"`);
    c.res = undefined;
    c.res =
      c.req.header('if-none-match') === `"${tag}"`
        ? new Response(null, { status: 304, headers })
        : new Response(text.replace('<html ', `<html data-tag="${tag}" `), { headers });
  };
}
