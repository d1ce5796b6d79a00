/**
 * Stored files: `GET /v1/generations/:id/assets/:name`. Storage that gives links (S3) is redirected to; files on a disk
 * are served from here, whole or in one range (RFC 9110, 14), with the digest as their strong validator.
 */
import { Readable } from 'node:stream';
import { Hono, type Context } from 'hono';
import { NotFoundError } from '../errors.js';
import type { Asset, Assets } from '../generation/record.js';
import type { Hub } from '../pipeline/context.js';
import type { Reelhaul } from '../reelhaul.js';
import { isSignedLink } from '../storage/signed-link.js';
import type { Storage } from '../storage/storage.js';
import type { ApiEnv } from './access.js';
import { seen } from './generations.js';
import { HttpError } from './problems.js';
import { ASSET_NAMES } from './schemas.js';

const LINK_SECONDS = 300;

interface Range {
  readonly start: number;
  readonly end: number;
}

/** The one range that is asked for; null for none, or for forms that may be answered with the whole file. */
export function readRange(header: string | undefined, sizeBytes: number): Range | 'unsatisfiable' | null {
  const [whole, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '') ?? [];
  if (whole === undefined || (first === '' && last === '')) return null;
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? 'unsatisfiable' : { start: sizeBytes - length, end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (last !== '' && Number(last) < start) return null;
  return start >= sizeBytes ? 'unsatisfiable' : { start, end };
}

/** The file itself, whole or in one range. A browser asks each time whether it is still this one, by its ETag. */
export async function serveFile(
  c: Context,
  storage: Storage,
  asset: Omit<Asset, 'sizeBytes' | 'sha256'> & { readonly sha256: string | null },
  cacheControl = 'private, no-cache',
): Promise<Response> {
  const stored = await storage.stat(asset.key);
  if (!stored) throw new HttpError(404, 'asset_missing', 'The file is no longer in storage.');
  const { sizeBytes } = stored;
  const etag = asset.sha256 === null ? null : `"${asset.sha256}"`;
  const headers: Record<string, string> = {
    ...(etag === null ? {} : { etag }),
    'accept-ranges': 'bytes',
    'content-type': asset.contentType,
    'cache-control': cacheControl,
    'x-content-type-options': 'nosniff',
  };
  if (etag !== null && c.req.header('if-none-match') === etag) return c.body(null, 304, headers);
  const condition = c.req.header('if-range');
  const unchanged = condition === undefined || condition === etag;
  const range = unchanged ? readRange(c.req.header('range'), sizeBytes) : null;
  if (range === 'unsatisfiable') {
    throw new HttpError(416, 'range_not_satisfiable', `The file has ${sizeBytes} bytes.`, {
      'content-range': `bytes */${sizeBytes}`,
    });
  }
  const length = range ? range.end - range.start + 1 : sizeBytes;
  if (range) headers['content-range'] = `bytes ${range.start}-${range.end}/${sizeBytes}`;
  headers['content-length'] = String(length);
  const status = range ? 206 : 200;
  if (c.req.method === 'HEAD') return c.body(null, status, headers);
  const file = await storage.read(asset.key, range ?? undefined);
  return c.body(Readable.toWeb(file) as ReadableStream, status, headers);
}

/** @param openedStorage opens the storage when it is first needed. */
export function createAssetRoutes(reelhaul: Reelhaul, openedStorage: () => Promise<Storage>): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();
  routes.get('/generations/:id/assets/:name', async (c) => {
    const { assets, id } = await seen(reelhaul, c.var.caller, c.req.param('id'));
    const asset = findAsset(assets, id, c.req.param('name'));
    const storage = await openedStorage();
    if (!storage.urlFor) return serveFile(c, storage, asset);
    const link = await storage.urlFor(asset.key, { expiresInSeconds: LINK_SECONDS });
    return c.body(null, 302, { location: link, 'cache-control': 'no-store' });
  });
  return routes;
}

/** `GET /files/:id/:name?expires=…&signature=…`: what `getAssetUrl` links to. No token; the signature is the proof. */
export function createLinkRoutes(hub: Hub, openedStorage: () => Promise<Storage>): Hono<ApiEnv> {
  const routes = new Hono<ApiEnv>();
  routes.get('/files/:id/:name', async (c) => {
    const { id: generationId, name } = c.req.param();
    const target = { generationId, name, expiresAt: Number(c.req.query('expires')) };
    const signature = c.req.query('signature') ?? '';
    const { CALLBACK_SECRET } = hub.config;
    if (!CALLBACK_SECRET.some((secret) => isSignedLink(secret, target, signature, hub.now()))) {
      throw new HttpError(403, 'link_expired', 'This link is not good, or not any more.');
    }
    const record = await hub.store.get(generationId);
    const asset = findAsset(record?.assets ?? null, generationId, name);
    // Kept no longer than the link is good.
    const left = Math.max(0, Math.floor((target.expiresAt - hub.now()) / 1000));
    return serveFile(c, await openedStorage(), asset, `private, max-age=${left}`);
  });
  return routes;
}

/** @throws NotFoundError */
export function findAsset(assets: Assets | null, generationId: string, wanted: string): Asset {
  const name = ASSET_NAMES.find((known) => known === wanted);
  const asset = name === undefined ? null : assets?.[name];
  if (!asset) throw new NotFoundError(`${generationId} with such an asset in storage`);
  return asset;
}
