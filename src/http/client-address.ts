/**
 * The address of a client. Behind a proxy it is in `X-Forwarded-For`, which any client can write: it is trusted only when the
 * connection comes from one of `TRUSTED_PROXIES`, and only as far as those proxies wrote it.
 */
import { isIP } from 'node:net';
import { getConnInfo } from '@hono/node-server/conninfo';
import type { Context } from 'hono';
import type { Config } from '../config/config.js';
import { parseAllowedHosts } from '../outbound/address-rules.js';

const plain = (address: string) => address.trim().replace(/^::ffff:(?=\d+\.)/i, '');

/** The other end of the connection. */
export const peerOf = (c: Context): string => plain(getConnInfo(c).remote.address ?? '');

export interface ClientAddress {
  /** The client, as far as the proxies that are trusted know it. */
  of(c: Context): string;
  /** Is the other end of the connection one of these proxies? */
  isProxied(c: Context): boolean;
}

export function createClientAddress({ TRUSTED_PROXIES }: Pick<Config, 'TRUSTED_PROXIES'>): ClientAddress {
  const trusted = parseAllowedHosts(TRUSTED_PROXIES);
  const isTrusted = (address: string) => isIP(address) !== 0 && trusted.coversAddress(address, 0);
  return {
    isProxied: (c) => isTrusted(peerOf(c)),
    of(c) {
      let address = peerOf(c);
      // Each proxy appends the address it was asked from: the last one that no trusted proxy has is the client.
      const chain = (c.req.header('x-forwarded-for') ?? '').split(',').map(plain);
      while (isTrusted(address) && isIP(chain.at(-1) ?? '') !== 0) address = chain.pop()!;
      return address;
    },
  };
}

/** One client with IPv6 has at least the 2^64 addresses of its network: they count as one. */
export function networkOf(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = '', tail = ''] = address.split('%')[0]!.split('::');
  const groups = head === '' ? [] : head.split(':');
  const behind = tail === '' ? [] : tail.split(':');
  const zeros = address.includes('::') ? Math.max(0, 8 - groups.length - behind.length) : 0;
  const all = [...groups, ...Array.from({ length: zeros }, () => '0'), ...behind];
  const network = all.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${network.join(':')}::/64`;
}
