/**
 * Fetches an asset of the provider, safely: the links come from outside, so nothing about them is trusted.
 *
 * - http and https only; private addresses are refused after DNS and again on every redirect (`allowed-hosts.ts`). The
 *   addresses that were checked are the ones connected to, so a name cannot change its answer in between.
 * - Redirects are followed here, at most five, each one checked like the first link. A redirect from https to http is
 *   followed: the provider hands out plain http links itself, and neither key nor cookie travels with it.
 * - The API key goes only to a `…/content` path on the API's own origin (scheme, host, port), never past a redirect.
 * - Bytes come as they are stored (`identity`): what is counted and hashed is what the host has.
 * - A body that breaks midway is resumed from the byte reached, if the host supports ranges and gave a strong validator
 *   (RFC 9110, 13.1.5), so that bytes of two different files are never joined. Without one the caller starts anew.
 *
 * Every failure is an `AssetError`, decided by status, class or code. An abort by `signal` rejects with its reason.
 */
import { lookup } from 'node:dns/promises';
import type { ClientRequest } from 'node:http';
import { Readable } from 'node:stream';
import { parseAllowedHosts } from './address-rules.js';
import { parseRetryAfterMs, send, type Watcher, type WireAnswer } from './http.js';
import { AssetError } from './asset-error.js';
import { guardedAgent, HostRefusedError, type KeptAgents, type ResolvedAddress } from './guarded-agent.js';

export interface OpenAssetOptions {
  /** Aborts the download at any time, also while the body is read. */
  readonly signal?: AbortSignal;
  /** Where the API lives and its key, for `…/content` links. Without it no key is ever sent. */
  readonly api?: { readonly baseUrl: string; readonly key: string };
  /** `ARCHIVE_ALLOW_HOSTS`. Default none. */
  readonly allowHosts?: readonly string[];
  /** `ARCHIVE_ONLY_ALLOWED`: public hosts need an entry too. Default false. */
  readonly onlyAllowed?: boolean;
  /** Longest wait for DNS, TCP and TLS, per request. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /** Longest wait for the answer and for each piece of the body; time in which nobody reads does not count. Default 30 s. */
  readonly idleTimeoutMs?: number;
  /** Longest time for everything together, the reading of the body included. Default 15 min. */
  readonly totalTimeoutMs?: number;
  /** More bytes than this are `tooLarge`. Default 5 GB. */
  readonly maxBytes?: number;
  /** How often a broken body may be resumed; each time at least one byte must have come. Default 5, 0 is never. */
  readonly maxResumes?: number;
  /** Epoch milliseconds, to read dates in `Retry-After`. Default `Date.now`. */
  readonly now?: () => number;
  /** DNS; all addresses of a name. Default that of the system. */
  readonly resolve?: (hostname: string) => Promise<readonly ResolvedAddress[]>;
  /** Connections kept between downloads. They bring their own rules, which then replace the three above. Default none. */
  readonly agents?: Pick<KeptAgents, 'agentFor'>;
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
  /** The link after all redirects. */
  readonly finalUrl: string;
  /** How often the body was resumed so far. */
  readonly resumes: () => number;
}

const MAX_REDIRECTS = 5;
/** setTimeout fires at once for more than this. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** The link is dead and a fresh poll may bring a new one (`docs/provider.md`, Assets). */
const GONE: ReadonlySet<number> = new Set([403, 404, 410]);

type Headers = Readonly<Record<string, unknown>>;

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly stream: Readable;
  readonly url: URL;
}

/** What all requests of one download share. */
interface Session {
  readonly start: URL;
  readonly agents: Pick<KeptAgents, 'agentFor'>;
  readonly options: Required<
    Omit<OpenAssetOptions, 'signal' | 'api' | 'allowHosts' | 'onlyAllowed' | 'resolve' | 'agents'>
  > &
    Pick<OpenAssetOptions, 'api'>;
  /** Aborted with the reason for which everything ends. */
  readonly ended: AbortController;
}

/**
 * Opens the asset behind `url`: resolves once a host answered 200.
 * @throws AssetError; the reason of `signal`; InvalidInputError when an entry of `allowHosts` makes no sense.
 */
export async function openAsset(url: string, options: OpenAssetOptions = {}): Promise<OpenedAsset> {
  const session: Session = {
    start: parseLink(url, null),
    agents: options.agents ?? freshAgents(options),
    options: {
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 30_000,
      totalTimeoutMs: options.totalTimeoutMs ?? 900_000,
      maxBytes: options.maxBytes ?? 5_000_000_000,
      maxResumes: options.maxResumes ?? 5,
      now: options.now ?? Date.now,
      ...(options.api === undefined ? {} : { api: options.api }),
    },
    ended: new AbortController(),
  };
  const { ended } = session;
  const { signal } = options;
  signal?.throwIfAborted();

  const onAbort = (): void => ended.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const total = startTimer(session.options.totalTimeoutMs, () =>
    ended.abort(
      new AssetError(
        'unavailable',
        `${shown(session.start)} took longer than ${session.options.totalTimeoutMs} ms.`,
      ),
    ),
  );
  const close = (): void => {
    clearTimeout(total);
    signal?.removeEventListener('abort', onAbort);
  };

  try {
    const answer = await follow(session, null);
    const expectedBytes = checkedLength(answer, session.options.maxBytes);
    const resumes = { count: 0 };
    const body = readableOf(session, answer, expectedBytes, resumes);
    body.once('close', close);
    return {
      body,
      expectedBytes,
      contentType: text(answer.headers['content-type']),
      finalUrl: answer.url.href,
      resumes: () => resumes.count,
    };
  } catch (error) {
    close();
    // Requests that are still under way have no reader any more.
    ended.abort(error);
    throw error;
  }
}

/** DNS as the system does it. */
export const resolveBySystem = (hostname: string): Promise<readonly ResolvedAddress[]> =>
  lookup(hostname, { all: true });

/** A new connection for every request. */
function freshAgents({ allowHosts = [], onlyAllowed = false, resolve = resolveBySystem }: OpenAssetOptions) {
  const guard = {
    allowed: parseAllowedHosts(allowHosts),
    onlyAllowed,
    resolve,
    setting: 'ARCHIVE_ALLOW_HOSTS',
  };
  return { agentFor: (url: URL, signal: AbortSignal) => guardedAgent(url, { ...guard, signal }) };
}

/** Where to go on after a broken body. */
interface Continuation {
  readonly fromByte: number;
  readonly validator: string;
}

/** One request and its redirects. Resolves with a 200, or with a 206 that goes on exactly where `from` says. */
async function follow(session: Session, from: Continuation | null): Promise<Answer> {
  let url = session.start;
  for (let redirects = 0; ; redirects += 1) {
    const answer = await request(session, url, redirects === 0, from);
    if (!REDIRECTS.has(answer.status)) {
      const error = whyNotUsable(answer, from, session.options.now);
      if (error === null) return answer;
      answer.stream.destroy();
      throw error;
    }
    answer.stream.destroy();
    const location = text(answer.headers['location']);
    if (location === null) {
      throw new AssetError('unavailable', `${shown(url)} redirects without saying where to.`, {
        httpStatus: answer.status,
      });
    }
    if (redirects === MAX_REDIRECTS) {
      throw new AssetError(
        'unavailable',
        `${shown(session.start)} redirects more than ${MAX_REDIRECTS} times.`,
        {
          httpStatus: answer.status,
        },
      );
    }
    url = parseLink(location, url);
  }
}

async function request(
  session: Session,
  url: URL,
  isFirst: boolean,
  from: Continuation | null,
): Promise<Answer> {
  const { ended, options } = session;
  const giveUp = (message: string): void =>
    ended.abort(new AssetError('unavailable', `${shown(url)}: ${message}`));
  let timer = startTimer(options.connectTimeoutMs, () =>
    giveUp(`no connection within ${options.connectTimeoutMs} ms.`),
  );
  const onConnect = (): void => {
    clearTimeout(timer);
    timer = startTimer(options.idleTimeoutMs, () => giveUp(`no answer within ${options.idleTimeoutMs} ms.`));
  };
  try {
    const headers: Record<string, string> = {
      Accept: '*/*',
      'Accept-Encoding': 'identity',
      'User-Agent': 'reelhaul',
    };
    if (isFirst && options.api !== undefined && isOwnContent(url, options.api.baseUrl)) {
      headers['Authorization'] = `Bearer ${options.api.key}`;
    }
    if (from !== null) {
      headers['Range'] = `bytes=${from.fromByte}-`;
      headers['If-Range'] = from.validator;
    }
    const response = await ask(session, url, headers, onConnect);
    return { status: response.status, headers: response.headers, stream: response.body, url };
  } catch (error) {
    ended.signal.throwIfAborted();
    if (error instanceof AssetError) throw error;
    if (error instanceof HostRefusedError) throw new AssetError('forbiddenHost', error.message);
    throw new AssetError('unavailable', `${shown(url)} cannot be reached: ${codeOf(error)}.`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
}

/** One GET. A kept connection that its server closed just now says nothing about the asset: then a fresh one is tried. */
async function ask(
  { agents, ended }: Session,
  url: URL,
  headers: Record<string, string>,
  onConnect: () => void,
): Promise<WireAnswer> {
  for (;;) {
    const agent = await agents.agentFor(url, ended.signal);
    let request: ClientRequest | undefined;
    const watcher: Watcher = {
      begun: (made) => (request = made),
      connected: onConnect,
      flushed: () => {},
      closed: () => {},
    };
    try {
      return await send({ method: 'GET', url, headers, signal: ended.signal }, { agent, watcher });
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
    return new AssetError('gone', `${shown(url)} answered ${status}: the link is no longer valid.`, details);
  }
  if (status !== 200 && !(from !== null && status === 206)) {
    return new AssetError('unavailable', `${shown(url)} answered ${status} instead of 200.`, details);
  }
  const encoding = text(headers['content-encoding'])?.trim().toLowerCase() ?? 'identity';
  if (encoding !== 'identity' && encoding !== '') {
    return new AssetError(
      'invalid',
      `${shown(url)} sent its bytes as ${encoding}, though identity was asked for.`,
      details,
    );
  }
  if (from !== null) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/i.exec(text(headers['content-range']) ?? '');
    if (status !== 206 || range === null || Number(range[1]) !== from.fromByte) {
      return new AssetError(
        'unavailable',
        `${shown(url)} broke off at byte ${from.fromByte} and does not go on from there.`,
        details,
      );
    }
  }
  return null;
}

/** `Content-Length` of a 200, checked against the limit. */
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

/** The body as one stream, across resumes. */
function readableOf(
  session: Session,
  first: Answer,
  expectedBytes: number | null,
  resumes: { count: number },
): Readable {
  const { ended } = session;
  let answer = first;
  const chunks = pieces();

  async function* pieces(): AsyncGenerator<Buffer, void, undefined> {
    const { maxBytes, maxResumes } = session.options;
    const validator = strongValidator(first);
    let received = 0;
    for (;;) {
      const receivedBefore = received;
      let broken: unknown = null;
      try {
        for await (const chunk of notIdle(answer, session.options.idleTimeoutMs)) {
          received += chunk.length;
          if (received > maxBytes) {
            throw new AssetError(
              'tooLarge',
              `${shown(answer.url)} sent more than the limit of ${maxBytes} bytes.`,
            );
          }
          yield chunk;
        }
      } catch (error) {
        ended.signal.throwIfAborted();
        if (error instanceof AssetError) throw error;
        broken = error;
      }
      if (broken === null && (expectedBytes === null || received === expectedBytes)) return;
      if (validator === null || resumes.count >= maxResumes || received === receivedBefore) {
        throw new AssetError(
          'unavailable',
          `${shown(answer.url)} broke off at byte ${received}${expectedBytes === null ? '' : ` of ${expectedBytes}`}: ${codeOf(broken)}.`,
          { cause: broken },
        );
      }
      resumes.count += 1;
      answer = await follow(session, { fromByte: received, validator });
      if (isAboutAnother(answer, validator, expectedBytes)) {
        answer.stream.destroy();
        throw new AssetError('unavailable', `${shown(answer.url)} changed while it was being read.`);
      }
    }
  }

  let whole = false;
  const body = new Readable({
    highWaterMark: 64 * 1024,
    read() {
      chunks.next().then(
        ({ done, value }) => {
          whole = done === true;
          this.push(done === true ? null : value);
        },
        (error: unknown) => this.destroy(asError(error)),
      );
    },
    destroy(error, done) {
      // Ends the request that may be waited for; its outcome interests nobody any more.
      if (!whole) {
        ended.abort(error);
        answer.stream.destroy();
      }
      done(error);
    },
  });
  ended.signal.addEventListener('abort', () => body.destroy(asError(ended.signal.reason)), { once: true });
  return body;
}

/** Passes the pieces on; when one takes longer than `idleTimeoutMs` the connection is given up. */
async function* notIdle(answer: Answer, idleTimeoutMs: number): AsyncGenerator<Buffer, void, undefined> {
  const iterator = answer.stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  try {
    for (;;) {
      const timer = startTimer(idleTimeoutMs, () =>
        answer.stream.destroy(Object.assign(new Error('The host sent nothing more.'), { code: 'ETIMEDOUT' })),
      );
      try {
        const { done, value } = await iterator.next();
        if (done === true) return;
        clearTimeout(timer);
        yield value;
      } finally {
        clearTimeout(timer);
      }
    }
  } finally {
    answer.stream.destroy();
  }
}

/**
 * What proves that a later answer is about the very same bytes: a strong ETag, else a Last-Modified that is at least a
 * minute older than the answer (RFC 9110, 8.8.2.2). Null when there is none, or when the host says it has no ranges.
 */
function strongValidator({ headers }: Answer): string | null {
  if (text(headers['accept-ranges'])?.trim().toLowerCase() === 'none') return null;
  const etag = text(headers['etag']);
  if (etag !== null && /^"[^"]*"$/.test(etag)) return etag;
  if (etag !== null) return null;
  const modified = text(headers['last-modified']);
  const modifiedAt = Date.parse(modified ?? '');
  const sentAt = Date.parse(text(headers['date']) ?? '');
  return sentAt - modifiedAt >= 60_000 ? modified : null;
}

/** Does this 206 contradict what the first answer said? A host that takes `If-Range` wrongly is found here. */
function isAboutAnother({ headers }: Answer, validator: string, expectedBytes: number | null): boolean {
  const said = text(headers[validator.startsWith('"') ? 'etag' : 'last-modified']);
  const total = /\/(\d+)$/.exec(text(headers['content-range']) ?? '')?.[1];
  return (
    (said !== null && said !== validator) ||
    (total !== undefined && expectedBytes !== null && Number(total) !== expectedBytes)
  );
}

/** Is this a file of the API itself, which asks for the key? */
function isOwnContent(url: URL, apiBaseUrl: string): boolean {
  return (
    url.pathname.endsWith('/content') && URL.canParse(apiBaseUrl) && url.origin === new URL(apiBaseUrl).origin
  );
}

function parseLink(link: string, base: URL | null): URL {
  if (!URL.canParse(link, base?.href)) {
    throw new AssetError('forbiddenHost', `The link ${JSON.stringify(link.slice(0, 80))} is no URL.`);
  }
  const url = new URL(link, base?.href);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new AssetError('forbiddenHost', `Only http and https links are fetched, got ${url.protocol}//.`);
  }
  if (url.username !== '' || url.password !== '') {
    throw new AssetError('forbiddenHost', `The link to ${shown(url)} has a user name or password in it.`);
  }
  return url;
}

/** A link for messages: without its query, in which signatures and tokens stand. */
function shown(url: URL): string {
  return `${url.origin}${url.pathname}`.slice(0, 200);
}

function text(header: unknown): string | null {
  return typeof header === 'string' ? header : null;
}

/** What a transport error is called. Not by class: errors of the platform may come from another realm than ours. */
function codeOf(error: unknown): string {
  if (error === null) return 'fewer bytes than announced';
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === 'string' ? code : typeof message === 'string' ? message : 'unknown';
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

function startTimer(delayMs: number, onTime: () => void): NodeJS.Timeout {
  return setTimeout(onTime, Math.min(delayMs, LONGEST_TIMER_MS));
}
