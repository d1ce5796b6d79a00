/**
 * Callbacks: what the provider posts to `callback_url` when a task ends, with everything that can go wrong on the way.
 * A callback is posted once; the real provider documents no retries.
 */
import http from 'node:http';
import https from 'node:https';
import type { LedgerCallback } from './ledger.js';
import type { LedgerBook } from './ledger-book.js';
import { callbackBody, type AssetUrls } from './shapes.js';
import { phaseOf, type Phase, type Task } from './task.js';
import type { Timers } from './timers.js';

/** A receiver that does not answer within this is given up. */
const TIMEOUT_MS = 10_000;
/** How long an early callback may hold back the submit's answer. */
const EARLY_TIMEOUT_MS = 2000;

export interface CallbackSender {
  /** Plans the callbacks of a new task. */
  schedule(task: Task): void;
  /** Posts the early one now, before the submit is answered. Never throws. */
  postEarly(task: Task): Promise<void>;
  /** Forgets the callbacks that are planned. */
  cancelAll(): void;
  close(): void;
}

export interface CallbackSenderDeps {
  readonly ledger: LedgerBook;
  readonly timers: Timers;
  readonly now: () => number;
  readonly urlsOf: (task: Task) => AssetUrls;
  /** May this host be posted to? Keeps a local simulator from calling the internet (placeholder URLs). */
  readonly mayPostTo: (hostname: string) => boolean;
  /** Added to every callback, in ms. */
  readonly delayMs: number;
}

/** The same URL with another token (its last path segment). */
function withWrongToken(url: string): string {
  const wrong = new URL(url);
  wrong.pathname = wrong.pathname.replace(/[^/]*$/, 'wrong-token');
  return wrong.href;
}

export function createCallbackSender(deps: CallbackSenderDeps): CallbackSender {
  const { ledger, timers, now, urlsOf, mayPostTo, delayMs } = deps;
  const open = new Set<http.ClientRequest>();
  const planned = new Set<() => void>();
  let isClosed = false;

  function post(url: string, body: string, timeoutMs: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const { request } = url.startsWith('https:') ? https : http;
      // A fresh connection each: nothing stays open behind the simulator.
      const outgoing = request(url, {
        method: 'POST',
        agent: false,
        headers: { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) },
      });
      open.add(outgoing);
      const cancelTimeout = timers.after(timeoutMs, () => {
        outgoing.destroy(new Error(`no answer within ${timeoutMs} ms`));
      });
      outgoing.on('response', (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      outgoing.on('error', reject);
      outgoing.on('close', () => {
        cancelTimeout();
        open.delete(outgoing);
        reject(new Error('connection closed'));
      });
      outgoing.end(body);
    });
  }

  async function deliver(
    task: Task,
    kind: LedgerCallback['kind'],
    phase: Phase,
    timeoutMs = TIMEOUT_MS,
  ): Promise<void> {
    if (isClosed) return;
    const { script } = task;
    const view = callbackBody(task, phase, now(), urlsOf(task));
    const body = kind === 'garbage' ? '{"task_id": "' : JSON.stringify(view);
    const url = script.callback.includes('wrong-token') ? withWrongToken(task.callbackUrl) : task.callbackUrl;
    const entry: LedgerCallback = {
      at: now(),
      kind,
      status: kind === 'garbage' ? null : String(view.status),
      url,
      httpStatus: null,
      error: null,
      doneAt: null,
    };
    ledger.callbackSent(task, entry);
    try {
      if (!mayPostTo(new URL(url).hostname)) throw new Error('not posted: this host is not allowed');
      entry.httpStatus = await post(url, body, timeoutMs);
    } catch (error) {
      entry.error = (error as Error).message;
    }
    entry.doneAt = now();
    ledger.changed();
  }

  function deliverAt(task: Task, at: number, kind: LedgerCallback['kind'], phases: readonly Phase[]): void {
    if (!Number.isFinite(at)) return;
    const cancel = timers.after(at - now(), () => {
      planned.delete(cancel);
      // One after the other, so that their order on the wire is the one meant here.
      void phases.reduce((before, phase) => before.then(() => deliver(task, kind, phase)), Promise.resolve());
    });
    planned.add(cancel);
  }

  return {
    schedule(task) {
      const modes = task.script.callback;
      if (modes.includes('lost')) return;
      const lateMs = delayMs + task.script.callbackDelayMs;
      const finalAt = task.finishesAt + lateMs;
      const end = phaseOf(task, Infinity);
      const times = (phase: Phase): Phase[] => (modes.includes('double') ? [phase, phase] : [phase]);
      if (modes.includes('every')) {
        deliverAt(task, task.createdAt + lateMs, 'change', times('queued'));
        deliverAt(task, task.startsAt + lateMs, 'change', times('running'));
      }
      if (modes.includes('garbage')) deliverAt(task, finalAt, 'garbage', times(end));
      else if (modes.includes('out-of-order')) deliverAt(task, finalAt, 'final', [...times(end), 'running']);
      else deliverAt(task, finalAt, 'final', times(end));
    },
    async postEarly(task) {
      await deliver(task, 'early', 'running', EARLY_TIMEOUT_MS);
    },
    cancelAll() {
      for (const cancel of planned) cancel();
      planned.clear();
    },
    close() {
      isClosed = true;
      for (const outgoing of open) outgoing.destroy();
    },
  };
}
