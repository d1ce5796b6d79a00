/**
 * A link as it was given. `URL` finds the host; the request sends path and query byte for byte as they were written,
 * because a signature covers them and `URL` rewrites some characters (an apostrophe in a query becomes `%27`). Only
 * bytes that HTTP does not allow in a request line are percent-encoded.
 */
import { AssetError } from './asset-error.js';

export interface Link {
  readonly url: URL;
  /** Path and query of the request line. */
  readonly target: string;
}

/** Reads a link, or a `Location` against `base`. @throws AssetError `forbiddenHost` */
export function parseLink(text: string, base: Link | null = null): Link {
  const link = text.trim();
  if (!URL.canParse(link, base?.url.href)) {
    throw new AssetError('forbiddenHost', `The link ${JSON.stringify(link.slice(0, 80))} is no URL.`);
  }
  const url = new URL(link, base?.url.href);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new AssetError('forbiddenHost', `Only http and https links are fetched, got ${url.protocol}//.`);
  }
  if (url.username !== '' || url.password !== '') {
    throw new AssetError('forbiddenHost', `The link to ${shown(url)} has a user name or password in it.`);
  }
  return { url, target: printable(writtenTarget(link, url)) };
}

/** A `Location` header, which Node hands out as Latin-1: its bytes may be raw UTF-8. */
export function readLocation(header: string): string {
  const bytes = Buffer.from(header, 'latin1');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return header.replace(/[\x80-\xff]/g, (char) => percent(char.charCodeAt(0)));
  }
}

/** A link for messages: without its query, in which signatures and tokens stand. */
export function shown(url: URL): string {
  return `${url.origin}${url.pathname}`.slice(0, 200);
}

function writtenTarget(link: string, url: URL): string {
  const normal = `${url.pathname}${url.search}`;
  const [withoutFragment = ''] = link.split('#', 1);
  const absolute = /^(?:https?:)?\/\/[^/?\\]+(?<rest>.*)$/is.exec(withoutFragment)?.groups?.['rest'];
  const rest = absolute ?? (/^\/(?!\/)/.test(withoutFragment) ? withoutFragment : null);
  if (rest?.startsWith('/') === true) return rest;
  // What does not begin with a path keeps its query as written.
  const query = withoutFragment.indexOf('?');
  return query === -1 ? normal : `${url.pathname}${withoutFragment.slice(query)}`;
}

function printable(target: string): string {
  return target.replace(/[^\x21-\x7e]+/g, (part) => Array.from(Buffer.from(part), percent).join(''));
}

function percent(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
}
