/**
 * The style sheet and the scripts of the pages, read once. Their address holds a digest of all of them together, so that
 * a browser may keep them for ever and never mixes two versions.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { Hono } from 'hono';
import { HttpError } from '../problems.js';

const FOLDER = fileURLToPath(new URL('./assets/', import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

const files = new Map(
  readdirSync(FOLDER)
    .toSorted()
    .map((name) => [name, readFileSync(FOLDER + name)] as const),
);
/** Compressed: they hold no secret that the compressed size could reveal. */
const packed = new Map([...files].map(([name, content]) => [name, gzipSync(content, { level: 9 })] as const));
const digest = createHash('sha256');
for (const [name, content] of files) digest.update(`${name}\0`).update(content);
/** Of all files together. */
export const BUILD = digest.digest('hex').slice(0, 16);

export const addressOfFile = (name: string): string => `/dashboard/assets/${BUILD}/${name}`;

export function createClientFileRoutes(): Hono {
  const routes = new Hono();
  routes.get('/dashboard/assets/:build/:name', (c) => {
    const { build, name } = c.req.param();
    const content = build === BUILD ? files.get(name) : undefined;
    const type = TYPES[name.split('.').at(-1) ?? ''];
    if (content === undefined || type === undefined)
      throw new HttpError(404, 'not_found', 'There is no such file.');
    const pack = /\bgzip\b/.test(c.req.header('accept-encoding') ?? '');
    return c.body(new Uint8Array(pack ? packed.get(name)! : content), 200, {
      'content-type': type,
      ...(pack ? { 'content-encoding': 'gzip' } : {}),
      vary: 'accept-encoding',
      'cache-control': 'public, max-age=31536000, immutable',
    });
  });
  return routes;
}
