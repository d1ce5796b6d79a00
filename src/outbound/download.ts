/**
 * Fetches an asset of the provider, safely: the links come from outside, so nothing about them is trusted.
 *
 * - http and https only; private addresses are refused after DNS and again on every redirect (`address-rules.ts`). The
 *   addresses that were checked are the ones connected to, so a name cannot change its answer in between.
 * - Redirects are followed here, at most five, each one checked like the first link. A redirect from https to http is
 *   followed: the provider hands out plain http links itself, and neither key nor cookie travels with it.
 * - The API key goes only to a content link of the API (`content-link.ts`), never past a redirect.
 * - The request asks for `identity`, so that the bytes that are counted are those of the file. A `Content-Encoding` in the
 *   answer is passed on to the caller and not applied here.
 * - A body that breaks midway is resumed (`body.ts`).
 *
 * Every failure is an `AssetError`, decided by status, class or code. An abort by `signal` rejects with its reason.
 */
import type { ClientRequest } from 'node:http';
import type { Readable } from 'node:stream';
import { parseLink, readLocation, shown, type Link } from './link.js';
import { parseRetryAfterMs, send, type Watcher, type WireAnswer } from './http.js';
import { AssetError } from './asset-error.js';
import { codeOf, readBody, text, type Answer, type Continuation } from './body.js';
import { LONGEST_TIMER_MS } from './limit.js';
import { apiLink, needsKey, type Api } from './content-link.js';
import { HostRefusedError, type KeptAgents } from './guarded-agent.js';

export interface OpenAssetOptions {
  /** Aborts the download at any time, also while the body is read. */
  readonly signal?: AbortSignal;
  /** Where the API lives and its key, for its own content links. Without it no key is ever sent. */
  readonly api?: Api;
  /** Connections, which bring the rules for hosts. */
  readonly agents: Pick<KeptAgents, 'agentFor'>;
  /** `User-Agent` of the requests; some hosts turn away those they do not know. */
  readonly userAgent: string;
  /** Longest wait for DNS, TCP and TLS, per request. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /** Longest wait for the answer and for each piece of the body; time without a reader does not count. */
  readonly idleTimeoutMs: number;
  /** Longest time for everything together, the reading of the body included. */
  readonly totalTimeoutMs: number;
  /** More bytes than this are `tooLarge`. */
  readonly maxBytes: number;
  /** How often a broken body may be resumed; each time at least one byte must have come. Default 5, 0 is never. */
  readonly maxResumes?: number;
  /** How many redirects are followed. Default 5. */
  readonly maxRedirects?: number;
  /** Epoch milliseconds, to read dates in `Retry-After`. */
  readonly now: () => number;
}

export interface OpenedAsset {
  /**
   * The bytes. Must be read to its end or destroyed. Errors with an `AssetError`, or with the reason of the abort.
   */
  readonly body: Readable;
  /** `Content-Length`; null when the host did not say. */
  readonly expectedBytes: number | null;
  /** What the host says it is; not to be believed. */
  readonly contentType: string | null;
  /** How the host says the bytes are encoded; not to be believed either. */
  readonly contentEncoding: string | null;
  /** The link after all redirects. */
  readonly finalUrl: string;
  /** How often the body was resumed so far. */
  readonly resumes: () => number;
}

const CONNECT_TIMEOUT_MS = 10_000;
const MAX_RESUMES = 5;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Not there now: gone, or not there yet (`docs/provider.md`, Assets). */
const GONE: ReadonlySet<number> = new Set([403, 404, 410]);

/** What all requests of one download share. */
interface Session {
  readonly start: Link;
  readonly options: OpenAssetOptions;
  /** Aborted with the reason for which everything ends. */
  readonly ended: AbortController;
}

/**
 * Opens the asset behind `url`: resolves once a host answered 200.
 * @throws AssetError; the reason of `signal`.
 */
export async function openAsset(url: string, options: OpenAssetOptions): Promise<OpenedAsset> {
  const { signal, api, totalTimeoutMs, maxBytes, maxResumes = MAX_RESUMES } = options;
  const start = api === undefined ? parseLink(url) : apiLink(url, api);
  const ended = new AbortController();
  const session: Session = { start, options, ended };
  signal?.throwIfAborted();

  const onAbort = (): void => ended.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const tooLong = `${shown(start.url)} took longer than ${totalTimeoutMs} ms.`;
  const total = startTimer(totalTimeoutMs, () => ended.abort(new AssetError('unavailable', tooLong)));
  const close = (): void => {
    clearTimeout(total);
    signal?.removeEventListener('abort', onAbort);
  };

  try {
    const answer = await follow(session, null);
    const expectedBytes = checkedLength(answer, maxBytes);
    const { stream, resumes } = readBody(answer, {
      expectedBytes,
      maxBytes,
      maxResumes,
      idleTimeoutMs: options.idleTimeoutMs,
      ended,
      goOn: (from) => follow(session, from),
    });
    stream.once('close', close);
    return {
      body: stream,
      expectedBytes,
      contentType: text(answer.headers['content-type']),
      contentEncoding: text(answer.headers['content-encoding']),
      finalUrl: answer.url.href,
      resumes,
    };
  } catch (error) {
    close();
    // Requests that are still under way have no reader any more.
    ended.abort(error);
    throw error;
  }
}

/** One request and its redirects. Resolves with a whole file, or with a 206 that goes on exactly where `from` says. */
async function follow(session: Session, from: Continuation | null): Promise<Answer> {
  let link = session.start;
  for (let redirects = 0; ; redirects += 1) {
    const answer = await request(session, link, redirects === 0, from);
    if (!REDIRECTS.has(answer.status)) {
      const error = whyNotUsable(answer, from, session.options.now);
      if (error === null) return answer;
      answer.stream.destroy();
      throw error;
    }
    answer.stream.destroy();
    const location = text(answer.headers['location']);
    const details = { httpStatus: answer.status };
    if (location === null) {
      const message = `${shown(link.url)} redirects without saying where to.`;
      throw new AssetError('unavailable', message, details);
    }
    const { maxRedirects: most = MAX_REDIRECTS } = session.options;
    if (redirects === most) {
      const times = most === 0 ? '' : ` more than ${most} times`;
      const message = `${shown(session.start.url)} redirects${times}.`;
      throw new AssetError('unavailable', message, details);
    }
    link = parseLink(readLocation(location), link);
  }
}

async function request(
  session: Session,
  link: Link,
  isFirst: boolean,
  from: Continuation | null,
): Promise<Answer> {
  const { ended, options } = session;
  const { url } = link;
  const { connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  const giveUp = (message: string): void =>
    ended.abort(new AssetError('unavailable', `${shown(url)}: ${message}`));
  let timer = startTimer(connectTimeoutMs, () => giveUp(`no connection within ${connectTimeoutMs} ms.`));
  const onConnect = (): void => {
    clearTimeout(timer);
    timer = startTimer(options.idleTimeoutMs, () => giveUp(`no answer within ${options.idleTimeoutMs} ms.`));
  };
  try {
    const headers: Record<string, string> = {
      Accept: '*/*',
      'Accept-Encoding': 'identity',
      'User-Agent': options.userAgent,
    };
    const own = isFirst && options.api !== undefined && needsKey(url, options.api);
    if (own) headers['Authorization'] = `Bearer ${options.api.key}`;
    if (from !== null) {
      headers['Range'] = `bytes=${from.fromByte}-`;
      headers['If-Range'] = from.validator;
    }
    const response = await ask(session, link, own, headers, onConnect);
    return { status: response.status, headers: response.headers, stream: response.body, url };
  } catch (error) {
    ended.signal.throwIfAborted();
    if (error instanceof AssetError) throw error;
    if (error instanceof HostRefusedError) {
      throw new AssetError('forbiddenHost', error.message, { detail: error.detail });
    }
    throw new AssetError('unavailable', `${shown(url)} cannot be reached: ${codeOf(error)}.`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** One GET. A kept connection that its server closed just now says nothing about the asset: then a fresh one is tried. */
async function ask(
  { options: { agents }, ended }: Session,
  { url, target }: Link,
  trusted: boolean,
  headers: Record<string, string>,
  onConnect: () => void,
): Promise<WireAnswer> {
  for (;;) {
    const agent = await agents.agentFor(url, ended.signal, trusted);
    let request: ClientRequest | undefined;
    const watcher: Watcher = {
      begun: (made) => (request = made),
      connected: onConnect,
      flushed: () => {},
      closed: () => {},
    };
    try {
      return await send({ method: 'GET', url, target, headers, signal: ended.signal }, { agent, watcher });
    } catch (error) {
      if (ended.signal.aborted || request?.reusedSocket !== true || codeOf(error) !== 'ECONNRESET')
        throw error;
    }
  }
}

/** Null when the answer's body can be read as the asset, or as its continuation. */
function whyNotUsable(answer: Answer, from: Continuation | null, now: () => number): AssetError | null {
  const { status, headers, url } = answer;
  const retryAfterMs = parseRetryAfterMs(text(headers['retry-after']) ?? '', now());
  const details = { httpStatus: status, retryAfterMs };
  if (GONE.has(status)) {
    const why =
      status === 403
        ? 'the link is not valid, or the host turns away the user agent (ARCHIVE_USER_AGENT)'
        : 'nothing is there';
    return new AssetError('gone', `${shown(url)} answered ${status}: ${why}.`, details);
  }
  if (status !== 200 && status !== 206) {
    return new AssetError('unavailable', `${shown(url)} answered ${status} instead of 200.`, details);
  }
  if (from !== null) {
    if (status === 206 && rangeOf(answer)?.first === from.fromByte) return null;
    const message = `${shown(url)} broke off at byte ${from.fromByte} and does not go on from there.`;
    return new AssetError('unavailable', message, details);
  }
  if (status === 206 && !isWhole(rangeOf(answer))) {
    return new AssetError(
      'unavailable',
      `${shown(url)} sent a part, though no range was asked for.`,
      details,
    );
  }
  return null;
}

interface ContentRange {
  readonly first: number;
  readonly last: number;
  /** Null: the host does not know. */
  readonly total: number | null;
}

function rangeOf({ headers }: Answer): ContentRange | null {
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(text(headers['content-range'])?.trim() ?? '');
  if (range === null) return null;
  const [, first, last, total] = range;
  return { first: Number(first), last: Number(last), total: total === '*' ? null : Number(total) };
}

/** Some hosts answer 206 with the whole file where no range was asked for. */
function isWhole(range: ContentRange | null): boolean {
  return range?.first === 0 && (range.total === null || range.last + 1 === range.total);
}

/** `Content-Length` of a whole file, checked against the limit. */
function checkedLength(answer: Answer, maxBytes: number): number | null {
  const said = text(answer.headers['content-length']);
  if (said === null || !/^\d+$/.test(said)) return null;
  const bytes = Number(said);
  if (bytes > maxBytes) {
    answer.stream.destroy();
    throw new AssetError('tooLarge', `${shown(answer.url)} has ${bytes} bytes; the limit is ${maxBytes}.`);
  }
  return bytes;
}

function startTimer(delayMs: number, onTime: () => void): NodeJS.Timeout {
  return setTimeout(onTime, Math.min(delayMs, LONGEST_TIMER_MS));
}
