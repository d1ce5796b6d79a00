/**
 * Which hosts an asset may be fetched from. Pure: names and addresses in, a verdict out; nothing is resolved here.
 *
 * Public addresses may be fetched, private ones (loopback, link-local, private, shared, multicast, documentation,
 * reserved, IPv4 inside IPv6) may not, unless an entry of `ARCHIVE_ALLOW_HOSTS` names them:
 *
 * - `simulator`, `cdn.internal:8080`: that host name, wherever it resolves to;
 * - `10.0.0.5`, `10.0.0.5:8080`, `::1`, `[::1]:8080`: that address, also behind a name that resolves to it;
 * - `10.0.0.0/8`, `fd00::/8`: every address in it, also behind a name that resolves to one.
 *
 * An entry with a port is for that port only. With `onlyAllowed` a public host needs an entry as well.
 */
import { BlockList, isIP } from 'node:net';
import type { Problem } from '../errors.js';
import { InvalidInputError } from '../errors.js';

export interface AllowedHosts {
  /** Is this host allowed by its name, wherever it resolves to? */
  readonly coversName: (hostname: string, port: number) => boolean;
  /** Is this address (literal or resolved) allowed by an entry, though it may be private? */
  readonly coversAddress: (address: string, port: number) => boolean;
}

interface Rule<T> {
  readonly match: T;
  /** Null: every port. */
  readonly port: number | null;
}

const HOST_NAME = /^(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*$/;

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4';
}

function parsePort(text: string): number | null {
  return /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535 ? Number(text) : null;
}

/** Splits `host`, `host:port`, `[v6]:port` and bare `v6`; null when it is none of them. */
function splitPort(entry: string): { host: string; port: number | null } | null {
  if (isIP(entry)) return { host: entry, port: null };
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<host>[^:[\]]+))(?::(?<port>[^:]*))?$/.exec(entry);
  const host = match?.groups?.['v6'] ?? match?.groups?.['host'];
  if (host === undefined || (match?.groups?.['v6'] !== undefined && isIP(host) !== 6)) return null;
  const portText = match?.groups?.['port'];
  if (portText === undefined) return { host, port: null };
  const port = parsePort(portText);
  return port === null ? null : { host, port };
}

/** Name without letter case and without the dot that marks a name as complete. */
function normalName(hostname: string): string {
  return hostname.toLowerCase().replace(/\.$/, '');
}

/**
 * Reads the entries. Throws `InvalidInputError` that names every entry which is none of the three forms, under
 * `path` (default `ARCHIVE_ALLOW_HOSTS`).
 */
export function parseAllowedHosts(entries: readonly string[], path = 'ARCHIVE_ALLOW_HOSTS'): AllowedHosts {
  const names: Rule<string>[] = [];
  const addresses: Rule<BlockList>[] = [];
  const problems: Problem[] = [];

  for (const entry of entries) {
    const refused = (): void => {
      problems.push({
        path,
        message: `expected a host name or an IP address with an optional port, or a CIDR, got ${JSON.stringify(entry)}`,
      });
    };
    const [network = '', prefix, ...rest] = entry.trim().toLowerCase().split('/');
    const list = new BlockList();
    if (prefix !== undefined) {
      const bits = /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
      if (rest.length > 0 || !isIP(network) || !(bits <= (isIP(network) === 6 ? 128 : 32))) {
        refused();
        continue;
      }
      list.addSubnet(network, bits, familyOf(network));
      addresses.push({ match: list, port: null });
      continue;
    }
    const parts = splitPort(network);
    if (parts === null) {
      refused();
    } else if (isIP(parts.host)) {
      list.addAddress(parts.host, familyOf(parts.host));
      addresses.push({ match: list, port: parts.port });
    } else if (HOST_NAME.test(normalName(parts.host))) {
      names.push({ match: normalName(parts.host), port: parts.port });
    } else {
      refused();
    }
  }
  if (problems.length > 0) throw new InvalidInputError('The allowed hosts cannot be used', problems);

  return {
    coversName: (hostname, port) =>
      names.some((rule) => rule.match === normalName(hostname) && (rule.port ?? port) === port),
    coversAddress: (address, port) =>
      addresses.some((rule) => (rule.port ?? port) === port && rule.match.check(address, familyOf(address))),
  };
}

/** Not globally reachable, after IANA's registries of special-purpose addresses. */
const SPECIAL = parseAllowedHosts([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
]);
/**
 * Of IPv6 only this is handed out at all; the rest (loopback, link-local, unique local, IPv4-mapped, multicast) is refused as a
 * whole, but for NAT64.
 */
const GLOBAL_IPV6 = parseAllowedHosts(['2000::/3']);
/** RFC 6052: how IPv6-only networks reach IPv4. */
const NAT64 = parseAllowedHosts(['64:ff9b::/96']);

/** The IPv4 address inside a NAT64 address; null for every other one. */
export function translatedIPv4(address: string): string | null {
  if (isIP(address) !== 6 || !NAT64.coversAddress(address, 0)) return null;
  // `URL` writes every spelling the same way: hexadecimal groups, zeros shortened.
  const groups = new URL(`http://[${address}]`).hostname.slice(1, -1).split(':');
  const bytes = groups.slice(-2).flatMap((group) => {
    const value = parseInt(group || '0', 16);
    return [value >> 8, value & 0xff];
  });
  return bytes.join('.');
}

/** Is this an address of the public internet? False for what is no address. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return false;
  const inside = translatedIPv4(address);
  if (inside !== null) return isPublicAddress(inside);
  return !SPECIAL.coversAddress(address, 0) && (family === 4 || GLOBAL_IPV6.coversAddress(address, 0));
}
