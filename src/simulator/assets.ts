/**
 * The provider's file host: real small files under links that can die, refusals, redirects, and ledger entries of every
 * request, with a flag when the API key came to a place where it must not.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { html, json, send, SWITCHING, type Answer } from './answers.js';
import { sendFile } from './downloads.js';
import type { LedgerAssetRequest } from './ledger.js';
import type { LedgerBook } from './ledger-book.js';
import { redirectTarget, wantedBy, type Wanted } from './links.js';
import { stepAt, type Step } from './script-fields.js';
import { numberArgument } from './script-values.js';
import { phaseOf, type Task } from './task.js';
import type { Timers } from './timers.js';

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
  /** Answers when the path is that of a file; false otherwise. */
  handle(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean>;
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

/** The step for this request; only requests that a client made of itself use one up. */
function takeStep(task: Task, wanted: Wanted, request: IncomingMessage, url: URL): Step {
  const ok: Step = { word: 'ok', argument: null, times: 1 };
  const hop = Number(url.searchParams.get('hop') ?? 0);
  const hops = Number(url.searchParams.get('hops') ?? 0);
  if (url.searchParams.has('loop')) return { word: 'redirect', argument: 'loop', times: 1 };
  if (hop < hops) return { word: 'redirect', argument: String(hops), times: 1 };
  if (hop > 0 || request.method === 'HEAD') return ok;
  const step = stepAt(task.script[wanted.asset], task.assetRequests[wanted.asset]);
  task.assetRequests[wanted.asset] += 1;
  return step;
}

export function createAssetHost(deps: AssetHostDeps): AssetHost {
  const { ledger, timers, now, apiKey, otherPort } = deps;

  /** Did the API key come along to a place that is not the API's own content URL? */
  function leaksKey(request: IncomingMessage, task: Task, wanted: Wanted): boolean {
    const mayHaveIt = wanted.isContent && request.headers.host === new URL(task.origin).host;
    if (mayHaveIt) return false;
    if (request.headers.authorization !== undefined) return true;
    const sent = `${request.url ?? ''}\n${request.rawHeaders.join('\n')}`;
    return apiKey !== null && sent.includes(apiKey);
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
            headers: { Location: redirectTarget(step, entry.host, url, otherPort()) },
          });
          break;
        default:
          if (step.word === '101') await plain(SWITCHING);
          else if (/^\d{3}$/.test(step.word)) await plain(storeError(Number(step.word)));
          else await sendFile({ request, response, entry, task, asset: wanted.asset, step, timers });
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
    if (now() < task.finishesAt + task.script.youngMs) {
      return { answer: storeError(task.script.youngStatus), why: 'young' };
    }
    if (Number(url.searchParams.get('link') ?? task.link) <= task.deadLink) {
      return { answer: storeError(task.deadLinkStatus), why: 'dead-link' };
    }
    return null;
  }

  return {
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
