/**
 * A file on its way to a client: whole, in part, or in one of the ways that a download goes wrong after it began well.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { closed, cut, writePiece } from './answers.js';
import { partOf, type Part } from './byte-ranges.js';
import type { LedgerAssetRequest } from './ledger.js';
import { wholeBytes, type AssetName, type Media } from './media.js';
import { type Step } from './script-fields.js';
import { durationArgument } from './script-values.js';
import { mediaOfTask, type Task } from './task.js';
import type { Timers } from './timers.js';

/** How long a slow download takes unless the step says otherwise. */
const SLOW_MS = 3000;
const SLOW_PIECES = 30;
/** Bytes that belong to no file format. */
const NOISE = Buffer.alloc(64 * 1024, 0x5a);

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

export interface Download {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Where the status and the bytes sent are entered. */
  readonly entry: LedgerAssetRequest;
  readonly task: Task;
  readonly asset: AssetName;
  readonly step: Step;
  readonly timers: Timers;
}

/** Sends the bytes of `part`, at once or spread over `overMs`. False when the client has gone. */
async function sendPart(download: Download, media: Media, part: Part, overMs = 0): Promise<boolean> {
  const { response, entry, timers } = download;
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

async function sendBytes({ response, entry }: Download, bytes: Buffer): Promise<boolean> {
  const isThere = await writePiece(response, bytes);
  if (isThere) entry.sentBytes += bytes.length;
  return isThere;
}

/** Sends the status line and headers; a length of null leaves `Content-Length` out. */
function sendHead(
  download: Download,
  status: number,
  lengthBytes: number | null,
  more: OutgoingHttpHeaders = {},
): void {
  const { response, entry, task, asset } = download;
  const media = mediaOfTask(task, asset);
  const etag = etagOf(task, asset, media);
  entry.httpStatus = status;
  response.writeHead(status, {
    'Content-Type': asset === 'video' ? (task.script.videoType ?? media.contentType) : media.contentType,
    'Last-Modified': new Date(task.createdAt).toUTCString(),
    ...(etag === null ? {} : { ETag: etag }),
    ...(asset === 'video' && task.script.contentEncoding !== null
      ? { 'Content-Encoding': task.script.contentEncoding }
      : {}),
    ...(task.script.ranges === 'off' ? {} : { 'Accept-Ranges': 'bytes' }),
    ...(lengthBytes === null ? {} : { 'Content-Length': lengthBytes }),
    ...more,
  });
}

async function finish({ response }: Download): Promise<void> {
  response.end();
  await closed(response);
}

/** Answers one request for a file of a finished task as the step says. */
export async function sendFile(download: Download): Promise<void> {
  const { response, task, asset, step, timers } = download;
  const media = mediaOfTask(task, asset);
  const whole: Part = { start: 0, end: media.sizeBytes };
  const half: Part = { start: 0, end: Math.floor(media.sizeBytes / 2) };
  switch (step.word) {
    case 'truncated-chunked':
      sendHead(download, 200, null);
      await sendPart(download, media, half);
      return finish(download);
    case 'truncated-close':
      // Neither a length nor chunks: only the end of the connection tells the end of the body.
      response.useChunkedEncodingByDefault = false;
      sendHead(download, 200, null, { Connection: 'close' });
      await sendPart(download, media, half);
      return finish(download);
    case 'cut-chunked':
      sendHead(download, 200, null);
      await sendPart(download, media, half);
      return cut(response);
    case 'short':
      sendHead(download, 200, half.end);
      await sendPart(download, media, half);
      return finish(download);
    case 'surplus':
      // More bytes than were said: the client may take only what was said.
      sendHead(download, 200, half.end, { Connection: 'close' });
      await sendPart(download, media, whole);
      return finish(download);
    case 'no-length':
      sendHead(download, 200, null);
      await sendPart(download, media, whole);
      return finish(download);
    case 'empty':
      sendHead(download, 200, 0);
      return finish(download);
    case 'garbage': {
      const noise = NOISE.subarray(0, Math.min(media.sizeBytes, NOISE.length));
      sendHead(download, 200, noise.length);
      await sendBytes(download, noise);
      return finish(download);
    }
    case 'no-moov': {
      const bytes = asset === 'video' ? withoutMoov(wholeBytes(media)) : Buffer.from('no image');
      sendHead(download, 200, bytes.length);
      await sendBytes(download, bytes);
      return finish(download);
    }
    case 'gzip': {
      const bytes = gzipSync(wholeBytes(media));
      sendHead(download, 200, bytes.length, { 'Content-Encoding': 'gzip' });
      await sendBytes(download, bytes);
      return finish(download);
    }
    case 'stall':
      sendHead(download, 200, media.sizeBytes);
      await sendPart(download, media, half);
      return closed(response);
    case 'endless':
      sendHead(download, 200, null);
      if (!(await sendPart(download, media, whole))) return;
      while (await sendBytes(download, NOISE)) await timers.sleep(1);
      return;
    default:
      return sendRange(download, media);
  }
}

/** The steps that serve ranges: ok, slow, truncated, drop. */
async function sendRange(download: Download, media: Media): Promise<void> {
  const { request, response, task, asset, step } = download;
  const { script } = task;
  const etag = etagOf(task, asset, media);
  const ifRange = request.headers['if-range'];
  const stillValid = ifRange === undefined || (ifRange === etag && script.etag !== 'weak');
  const asked =
    script.ranges === 'off' || !stillValid ? null : partOf(request.headers.range, media.sizeBytes);
  if (asked === 'unsatisfiable') {
    sendHead(download, 416, 0, { 'Content-Range': `bytes */${media.sizeBytes}` });
    return finish(download);
  }
  const part =
    asked !== null && script.ranges === 'wrong'
      ? { start: 0, end: asked.end - asked.start }
      : (asked ?? { start: 0, end: media.sizeBytes });
  if (asked === null && script.ranges !== 'whole-206') sendHead(download, 200, media.sizeBytes);
  else {
    sendHead(download, 206, part.end - part.start, {
      'Content-Range': `bytes ${part.start}-${part.end - 1}/${media.sizeBytes}`,
    });
  }
  if (request.method === 'HEAD') return finish(download);
  if (step.word === 'truncated') {
    // Half of the file and never more: a range behind the middle gets nothing.
    await sendPart(download, media, {
      start: part.start,
      end: Math.min(part.end, Math.floor(media.sizeBytes / 2)),
    });
    return cut(response);
  }
  if (step.word === 'drop') {
    // Half of what was asked for: asking for the rest makes progress.
    const middle = part.start + Math.floor((part.end - part.start) / 2);
    await sendPart(download, media, { start: part.start, end: middle });
    return cut(response);
  }
  const overMs = step.word === 'slow' ? durationArgument(step, SLOW_MS) : 0;
  if (await sendPart(download, media, part, overMs)) await finish(download);
}
