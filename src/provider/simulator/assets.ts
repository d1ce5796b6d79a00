/**
 * The provider's file host: real small files under links that can die, and every way in which a download goes wrong.
 *
 * Links look like `/assets/<taskId>/video.mp4?link=<n>`; the number grows when a fresh poll replaces a dead link. Where
 * `asset-auth=key` asks for it, the video is at `/v1/videos/<taskId>/content`, on the API's own origin and with its key.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { closed, cut, html, json, send, writePiece, type Answer } from './answers.js';
import type { LedgerAssetRequest, LedgerBook } from './ledger.js';
import { wholeBytes, type AssetName, type Media } from './media.js';
import { durationArgument, numberArgument, stepAt, type Step } from './script.js';
import type { AssetUrls } from './shapes.js';
import { mediaOfTask, phaseOf, type Task } from './task.js';
import type { Timers } from './timers.js';

/** How long a slow download takes unless the step says otherwise. */
const SLOW_MS = 3000;
const SLOW_PIECES = 30;
/** A private address where nothing listens, for redirects that must not be followed. */
const PRIVATE_HOST = '10.255.255.1';
const METADATA_HOST = '169.254.169.254';

export interface AssetHostDeps {
  readonly ledger: LedgerBook;
  readonly timers: Timers;
  readonly now: () => number;
  /** The key that content URLs need and that must not come anywhere else; null when none is set. */
  readonly apiKey: string | null;
  /** Port of the second listener: the same service as another host. */
  readonly otherPort: () => number;
}

export interface AssetHost {
  urlsOf(task: Task): AssetUrls;
  /** Answers when the path is one of ours; false otherwise. */
  handle(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean>;
}

function fileName(task: Task, asset: AssetName): string {
  switch (asset) {
    case 'video':
      return 'video.mp4';
    case 'poster':
      return `poster.${task.script.posterFormat === 'png' ? 'png' : 'jpg'}`;
    case 'lastFrame':
      return 'last-frame.jpg';
  }
}

const ASSET_OF_FILE: Readonly<Record<string, AssetName>> = {
  'video.mp4': 'video',
  'poster.jpg': 'poster',
  'poster.png': 'poster',
  'last-frame.jpg': 'lastFrame',
};

interface Wanted {
  readonly taskId: string;
  readonly asset: AssetName;
  readonly isContent: boolean;
}

function wantedBy(path: string): Wanted | null {
  const content = /^\/v1\/videos\/([^/]+)\/content$/.exec(path);
  if (content?.[1] !== undefined) return { taskId: content[1], asset: 'video', isContent: true };
  const file = /^\/assets\/([^/]+)\/([^/]+)$/.exec(path);
  const asset = ASSET_OF_FILE[file?.[2] ?? ''];
  if (file?.[1] === undefined || asset === undefined) return null;
  return { taskId: file[1], asset, isContent: false };
}

/** The same address under another name for this machine. */
function alias(hostname: string): string {
  return hostname === 'localhost' ? '127.0.0.1' : 'localhost';
}

interface Part {
  readonly start: number;
  readonly end: number;
}

/** The part that a `Range` header asks for: null for the whole file. One range only, as CDNs mostly serve. */
function partOf(header: string | undefined, sizeBytes: number): Part | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return null;
  if (match[1] === '') {
    const lastBytes = Number(match[2]);
    return lastBytes === 0 ? 'unsatisfiable' : { start: Math.max(0, sizeBytes - lastBytes), end: sizeBytes };
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? sizeBytes : Math.min(sizeBytes, Number(match[2]) + 1);
  if (start >= sizeBytes || end <= start) return 'unsatisfiable';
  return { start, end };
}

/** An MP4 without its `moov` box: nothing can play it. */
function withoutMoov(bytes: Buffer): Buffer {
  const kept: Buffer[] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const sizeBytes = bytes.readUInt32BE(at);
    if (sizeBytes < 8) return Buffer.concat([...kept, bytes.subarray(at)]);
    if (bytes.toString('latin1', at + 4, at + 8) !== 'moov') kept.push(bytes.subarray(at, at + sizeBytes));
    at += sizeBytes;
  }
  return Buffer.concat(kept);
}

/** What object stores say, in their own XML. */
function storeError(status: number): Answer {
  const code = { 403: 'AccessDenied', 404: 'NoSuchKey', 410: 'Gone' }[status] ?? 'Simulated';
  return {
    manner: 'whole',
    status,
    headers: { 'Content-Type': 'application/xml' },
    body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>simulated ${status}</Message></Error>`,
    overMs: 0,
  };
}

function etagOf(task: Task, asset: AssetName, media: Media): string | null {
  const tag = `"${task.taskId}-${asset}-${media.sizeBytes}"`;
  switch (task.script.etag) {
    case 'strong':
      return tag;
    case 'weak':
      return `W/${tag}`;
    case 'none':
      return null;
    case 'changing':
      return `"${task.taskId}-${task.assetRequests[asset]}"`;
  }
}

/** The step for this request; only requests that a client made of itself use one up. */
function takeStep(task: Task, wanted: Wanted, request: IncomingMessage, url: URL): Step {
  const ok: Step = { word: 'ok', argument: null, times: 1 };
  const hop = Number(url.searchParams.get('hop') ?? 0);
  const hops = Number(url.searchParams.get('hops') ?? 0);
  if (hop < hops) return { word: 'redirect', argument: String(hops), times: 1 };
  if (hop > 0 || request.method === 'HEAD') return ok;
  const step = stepAt(task.script[wanted.asset], task.assetRequests[wanted.asset]);
  task.assetRequests[wanted.asset] += 1;
  return step;
}

export function createAssetHost(deps: AssetHostDeps): AssetHost {
  const { ledger, timers, now, apiKey, otherPort } = deps;

  function originFor(task: Task): string {
    const url = new URL(task.origin);
    const wish = task.script.assetHost;
    if (wish === 'localhost') url.hostname = alias(url.hostname);
    else if (wish === 'other-port') url.port = String(otherPort());
    else if (wish !== 'same') return `http://${wish}`;
    return url.origin;
  }

  function linkOf(task: Task, asset: AssetName): string | null {
    if (task.script[asset].some(({ word }) => word === 'missing')) return null;
    const path =
      asset === 'video' && task.script.assetAuth === 'key'
        ? `/v1/videos/${task.taskId}/content`
        : `/assets/${task.taskId}/${fileName(task, asset)}`;
    return `${originFor(task)}${path}?link=${task.link}`;
  }

  /** Did the API key come along to a place that is not the API's own content URL? */
  function leaksKey(request: IncomingMessage, task: Task, wanted: Wanted): boolean {
    const mayHaveIt = wanted.isContent && request.headers.host === new URL(task.origin).host;
    if (mayHaveIt) return false;
    if (request.headers.authorization !== undefined) return true;
    const sent = `${request.url ?? ''}\n${request.rawHeaders.join('\n')}`;
    return apiKey !== null && sent.includes(apiKey);
  }

  function redirectTarget(step: Step, request: IncomingMessage, url: URL): string {
    const target = new URL(url.pathname + url.search, `http://${request.headers.host ?? 'localhost'}`);
    const hops = Number(url.searchParams.get('hop') ?? 0);
    const wish = step.argument ?? 'alias';
    // `hop` marks a request that was redirected: it uses up no step of its own.
    if (wish !== 'loop') target.searchParams.set('hop', String(hops + 1));
    if (/^\d+$/.test(wish)) target.searchParams.set('hops', wish);
    else if (wish === 'alias') target.hostname = alias(target.hostname);
    else if (wish === 'other-port') target.port = String(otherPort());
    else if (wish === 'private') target.host = PRIVATE_HOST;
    else if (wish === 'metadata') return `http://${METADATA_HOST}/latest/meta-data/`;
    else if (wish === 'file') return 'file:///etc/passwd';
    else if (wish !== 'loop') target.host = wish;
    return target.href;
  }

  async function sendPart(
    response: ServerResponse,
    entry: LedgerAssetRequest,
    media: Media,
    part: Part,
    overMs = 0,
  ): Promise<boolean> {
    const pieceBytes = overMs > 0 ? Math.max(1, Math.ceil((part.end - part.start) / SLOW_PIECES)) : Infinity;
    for (let at = part.start; at < part.end;) {
      const until = Math.min(part.end, at + pieceBytes);
      for (const piece of media.read(at, until)) {
        if (!(await writePiece(response, piece))) return false;
        entry.sentBytes += piece.length;
      }
      at = until;
      if (overMs > 0) await timers.sleep(overMs / SLOW_PIECES);
    }
    return true;
  }

  async function sendFile(
    request: IncomingMessage,
    response: ServerResponse,
    entry: LedgerAssetRequest,
    task: Task,
    asset: AssetName,
    step: Step,
  ): Promise<void> {
    const media = mediaOfTask(task, asset);
    const { script } = task;
    const etag = etagOf(task, asset, media);
    const headers: OutgoingHttpHeaders = {
      'Content-Type': asset === 'video' ? (script.videoType ?? media.contentType) : media.contentType,
      'Last-Modified': new Date(task.createdAt).toUTCString(),
      ...(etag === null ? {} : { ETag: etag }),
      ...(script.ranges === 'off' ? {} : { 'Accept-Ranges': 'bytes' }),
    };
    const whole: Part = { start: 0, end: media.sizeBytes };
    const half: Part = { start: 0, end: Math.floor(media.sizeBytes / 2) };

    function head(status: number, lengthBytes: number | null, more: OutgoingHttpHeaders = {}): void {
      entry.httpStatus = status;
      response.writeHead(status, {
        ...headers,
        ...(lengthBytes === null ? {} : { 'Content-Length': lengthBytes }),
        ...more,
      });
    }

    async function finish(): Promise<void> {
      response.end();
      await closed(response);
    }

    switch (step.word) {
      case 'truncated-chunked':
        head(200, null);
        await sendPart(response, entry, media, half);
        return finish();
      case 'truncated-close':
        // Neither a length nor chunks: only the end of the connection tells the end of the body.
        response.useChunkedEncodingByDefault = false;
        head(200, null, { Connection: 'close' });
        await sendPart(response, entry, media, half);
        return finish();
      case 'cut-chunked':
        head(200, null);
        await sendPart(response, entry, media, half);
        return cut(response);
      case 'short':
        head(200, half.end);
        await sendPart(response, entry, media, half);
        return finish();
      case 'surplus':
        // More bytes than were said: the client may take only what was said.
        head(200, half.end, { Connection: 'close' });
        await sendPart(response, entry, media, whole);
        return finish();
      case 'no-length':
        head(200, null);
        await sendPart(response, entry, media, whole);
        return finish();
      case 'empty':
        head(200, 0);
        return finish();
      case 'garbage': {
        const noise = Buffer.alloc(Math.min(media.sizeBytes, 64 * 1024), 0x5a);
        head(200, noise.length);
        if (await writePiece(response, noise)) entry.sentBytes += noise.length;
        return finish();
      }
      case 'no-moov': {
        const bytes = asset === 'video' ? withoutMoov(wholeBytes(media)) : Buffer.from('no image');
        head(200, bytes.length);
        if (await writePiece(response, bytes)) entry.sentBytes += bytes.length;
        return finish();
      }
      case 'gzip': {
        const bytes = gzipSync(wholeBytes(media));
        head(200, bytes.length, { 'Content-Encoding': 'gzip' });
        if (await writePiece(response, bytes)) entry.sentBytes += bytes.length;
        return finish();
      }
      case 'stall':
        head(200, media.sizeBytes);
        await sendPart(response, entry, media, half);
        return closed(response);
      case 'endless':
        head(200, null);
        if (!(await sendPart(response, entry, media, whole))) return;
        for (const noise = Buffer.alloc(64 * 1024, 0x5a); await writePiece(response, noise);) {
          entry.sentBytes += noise.length;
          await timers.sleep(1);
        }
        return;
      default:
        break;
    }

    // What is left serves ranges: ok, slow, truncated, drop.
    const ifRange = request.headers['if-range'];
    const stillValid = ifRange === undefined || (ifRange === etag && script.etag !== 'weak');
    const asked =
      script.ranges === 'off' || !stillValid ? null : partOf(request.headers.range, media.sizeBytes);
    if (asked === 'unsatisfiable') {
      head(416, 0, { 'Content-Range': `bytes */${media.sizeBytes}` });
      return finish();
    }
    const part =
      asked !== null && script.ranges === 'wrong'
        ? { start: 0, end: asked.end - asked.start }
        : (asked ?? whole);
    if (asked === null) head(200, media.sizeBytes);
    else {
      head(206, part.end - part.start, {
        'Content-Range': `bytes ${part.start}-${part.end - 1}/${media.sizeBytes}`,
      });
    }
    if (request.method === 'HEAD') return finish();
    if (step.word === 'truncated') {
      // Half of the file and never more: a range behind the middle gets nothing.
      await sendPart(response, entry, media, { start: part.start, end: Math.min(part.end, half.end) });
      return cut(response);
    }
    if (step.word === 'drop') {
      // Half of what was asked for: asking for the rest makes progress.
      const middle = part.start + Math.floor((part.end - part.start) / 2);
      await sendPart(response, entry, media, { start: part.start, end: middle });
      return cut(response);
    }
    const overMs = step.word === 'slow' ? durationArgument(step, SLOW_MS) : 0;
    if (await sendPart(response, entry, media, part, overMs)) await finish();
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    task: Task,
    wanted: Wanted,
  ): Promise<void> {
    const refused = refusalOf(request, url, task, wanted);
    const step = refused === null ? takeStep(task, wanted, request, url) : null;
    const entry: LedgerAssetRequest = {
      at: now(),
      asset: wanted.asset,
      host: request.headers.host ?? '',
      step: refused?.why ?? step?.word ?? '',
      range: request.headers.range ?? null,
      leakedKey: leaksKey(request, task, wanted),
      httpStatus: null,
      sentBytes: 0,
      doneAt: null,
    };
    ledger.assetRequested(task, entry);

    async function plain(reply: Answer): Promise<void> {
      entry.httpStatus = reply.manner === 'whole' ? reply.status : null;
      await send(response, reply, timers);
    }

    if (refused !== null) await plain(refused.answer);
    else if (step !== null) {
      switch (step.word) {
        case 'expired':
          task.deadLink = task.link;
          task.deadLinkStatus = numberArgument(step, 403);
          await plain(storeError(task.deadLinkStatus));
          break;
        case 'missing':
          await plain(storeError(404));
          break;
        case 'html':
          await plain(html(numberArgument(step, 200)));
          break;
        case 'json':
          await plain(json(numberArgument(step, 200), { error: { message: 'simulated', code: 'expired' } }));
          break;
        case 'reset':
        case 'hang':
          await plain({ ...storeError(500), manner: step.word });
          break;
        case 'redirect':
          await plain({
            ...storeError(302),
            headers: { Location: redirectTarget(step, request, url) },
          });
          break;
        default:
          if (/^\d{3}$/.test(step.word)) await plain(storeError(Number(step.word)));
          else await sendFile(request, response, entry, task, wanted.asset, step);
      }
    }
    entry.doneAt = now();
    ledger.changed();
  }

  function refusalOf(
    request: IncomingMessage,
    url: URL,
    task: Task,
    wanted: Wanted,
  ): { answer: Answer; why: string } | null {
    if (wanted.isContent) {
      const key = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
      if (key === undefined || (apiKey !== null && key !== apiKey)) {
        return { answer: json(401, { error: { message: 'Invalid token', code: '' } }), why: 'unauthorized' };
      }
    }
    if (phaseOf(task, now()) !== 'succeeded') return { answer: storeError(404), why: 'unfinished' };
    if (Number(url.searchParams.get('link') ?? task.link) <= task.deadLink) {
      return { answer: storeError(task.deadLinkStatus), why: 'dead-link' };
    }
    return null;
  }

  return {
    urlsOf(task) {
      const isWithheld =
        task.succeededPolls <= task.script.withoutUrlPolls && task.script.withoutUrlPolls > 0;
      return {
        video: isWithheld ? null : linkOf(task, 'video'),
        poster: linkOf(task, 'poster'),
        lastFrame: linkOf(task, 'lastFrame'),
      };
    },
    async handle(request, response, url) {
      const wanted = wantedBy(url.pathname);
      if (wanted === null || (request.method !== 'GET' && request.method !== 'HEAD')) return false;
      const task = ledger.task(wanted.taskId);
      if (task) await answer(request, response, url, task, wanted);
      else await send(response, storeError(404), timers);
      return true;
    },
  };
}
