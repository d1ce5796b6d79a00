/**
 * Access to the API. With `API_TOKENS` a bearer token decides, compared in constant time by its digest; a token with
 * a tenant sees only that tenant, a read-only one changes nothing. Without tokens only this machine may. A proxy or a web
 * page on this machine is not mistaken for it as far as it can be told apart; with a PUBLIC_URL others do come in through a
 * proxy, which may add nothing to their requests, and then not even this machine may.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { Context, MiddlewareHandler } from 'hono';
import type { Config } from '../config/config.js';
import { parseAllowedHosts } from '../outbound/address-rules.js';
import { createClientAddress, peerOf } from './client-address.js';
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

const LOOPBACK = parseAllowedHosts(['127.0.0.0/8', '::1']);
const isLoopback = (address: string) => isIP(address) !== 0 && LOOPBACK.coversAddress(address, 0);

const isLocalName = (hostname: string) => /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i.test(hostname);

/** May others reach this server? A PUBLIC_URL on this machine, as for the simulator, is none of others. */
export const isPublic = ({ PUBLIC_URL }: Config): boolean =>
  PUBLIC_URL !== '' && !isLocalName(new URL(PUBLIC_URL).hostname);

/** The peer is this machine, speaks for itself, and means this machine (a rebound DNS name does not). */
export function isThisMachine(c: Context, config: Config): boolean {
  if (isPublic(config) || createClientAddress(config).isProxied(c)) return false;
  const { host = '', origin, 'sec-fetch-site': site } = c.req.header();
  const named = isLocalName(host.replace(/:\d+$/, ''));
  const forwarded = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via'].some((name) => c.req.header(name));
  const foreign =
    site !== 'same-origin' &&
    origin !== undefined &&
    origin !== `http://${host}` &&
    origin !== `https://${host}`;
  return isLoopback(peerOf(c)) && named && !forwarded && !foreign;
}

/** Tells tokens apart, and is too short to confirm a guess at one: it stands in keys of Redis. */
const TOKEN_NAME_CHARS = 6;

export const READING = new Set(['GET', 'HEAD', 'OPTIONS']);

export function requireAccess(config: Config): MiddlewareHandler<ApiEnv> {
  const { API_TOKENS: tokens } = config;
  return async (c, next) => {
    if (tokens.length === 0) {
      if (!isThisMachine(c, config)) {
        throw new HttpError(
          403,
          'local_only',
          'Without API_TOKENS the API answers only this machine, asked directly as localhost, and with PUBLIC_URL nothing at all.',
        );
      }
      c.set('caller', { tenant: null, readOnly: false, name: `address:${peerOf(c)}` });
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
      c.set('caller', { tenant, readOnly, name: `token:${digest.slice(0, TOKEN_NAME_CHARS)}` });
    }
    await next();
  };
}
