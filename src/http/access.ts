/**
 * Who may use the API. With `API_TOKENS` a bearer token decides, compared in constant time by its digest; a token with
 * a tenant sees only that tenant, a read-only one changes nothing. Without tokens only this machine may, and a proxy or
 * a web page on this machine is not mistaken for it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { getConnInfo } from '@hono/node-server/conninfo';
import type { Context, MiddlewareHandler } from 'hono';
import type { Config } from '../config/config.js';
import { HttpError } from './problems.js';

export interface Caller {
  /** Null: all tenants. */
  readonly tenant: string | null;
  readonly readOnly: boolean;
  /** For the rate limit: no secret. */
  readonly name: string;
}

/** What routes find in their context. */
export interface ApiEnv {
  Variables: {
    caller: Caller;
    /** Counts a request as so many, for the rate limit. */
    countItems: (items: number) => Promise<void>;
  };
}

type Token = Config['API_TOKENS'][number];

export function findToken(tokens: readonly Token[], presented: string): Token | null {
  const digest = createHash('sha256').update(presented).digest();
  let found: Token | null = null;
  // All are compared, whichever matches.
  for (const token of tokens) if (timingSafeEqual(Buffer.from(token.digest, 'hex'), digest)) found = token;
  return found;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

function isLoopback(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '');
  if (isIPv4(plain)) return LOOPBACK.check(plain, 'ipv4');
  return isIPv6(plain) && LOOPBACK.check(plain, 'ipv6');
}

/** The peer is this machine, speaks for itself, and means this machine (a rebound DNS name does not). */
export function isThisMachine(c: Context): boolean {
  const { host = '', origin } = c.req.header();
  const named = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i.test(host);
  const forwarded = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via'].some((name) => c.req.header(name));
  const foreign = origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`;
  return isLoopback(addressOf(c)) && named && !forwarded && !foreign;
}

export function addressOf(c: Context): string {
  return getConnInfo(c).remote.address ?? '';
}

export const READING = new Set(['GET', 'HEAD', 'OPTIONS']);

export function requireAccess(tokens: readonly Token[]): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    if (tokens.length === 0) {
      if (!isThisMachine(c)) {
        throw new HttpError(
          403,
          'local_only',
          'Without API_TOKENS the API answers only to this machine, asked directly as localhost.',
        );
      }
      c.set('caller', { tenant: null, readOnly: false, name: `address:${addressOf(c)}` });
    } else {
      const [, presented] = /^Bearer +(\S+) *$/i.exec(c.req.header('authorization') ?? '') ?? [];
      const token = presented === undefined ? null : findToken(tokens, presented);
      if (token === null) {
        throw new HttpError(401, 'unauthorized', 'Expected Authorization: Bearer with a known token.', {
          'www-authenticate': 'Bearer realm="reelhaul"',
        });
      }
      if (token.readOnly && !READING.has(c.req.method))
        throw new HttpError(403, 'read_only', 'This token may only read.');
      const { tenant, readOnly, digest } = token;
      c.set('caller', { tenant, readOnly, name: `token:${digest.slice(0, 16)}` });
    }
    await next();
  };
}
