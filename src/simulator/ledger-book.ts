/** Keeps the ledger of the simulated provider (`ledger.ts`). */
import { createHash } from 'node:crypto';
import {
  billsPerGeneration,
  type GenerationBills,
  type Ledger,
  type LedgerAsset,
  type LedgerAssetRequest,
  type LedgerCallback,
  type LedgerSubmit,
  type LedgerTask,
} from './ledger.js';
import { sha256Of, wholeBytes, type AssetName } from './media.js';
import { mediaOfTask, phaseOf, type Task } from './task.js';

const KEPT_POLL_OUTCOMES = 100;
const KEPT_ASSET_REQUESTS = 200;
/** Up to here a checksum is taken at once, beyond it only when asked for. */
const CHEAP_HASH_BYTES = 1024 * 1024;

interface TaskBook {
  readonly task: Task;
  readonly callbacks: LedgerCallback[];
  readonly assetRequests: LedgerAssetRequest[];
  readonly pollOutcomes: string[];
  lastPollAt: number | null;
  minPollGapMs: number | null;
  endSeenAt: number | null;
  readonly promptSha256: string;
  /** Made when first shown; replaced when a checksum becomes known. */
  readonly assets: Partial<Record<AssetName, LedgerAsset>>;
}

export interface LedgerBook {
  submitArrived(at: number, runwayVersion: string | null): LedgerSubmit;
  submitDone(submit: LedgerSubmit, at: number): void;
  taskCreated(task: Task): void;
  /** A submit or a poll, whatever becomes of it. */
  callArrived(at: number): void;
  pollRefused(): void;
  pollArrived(task: Task | null, at: number, outcome: string): void;
  callbackSent(task: Task, callback: LedgerCallback): void;
  assetRequested(task: Task, request: LedgerAssetRequest): void;
  /** Something in an entry that was handed out has changed. */
  changed(): void;
  task(taskId: string): Task | undefined;
  tasksInFlight(nowMs: number): number;
  submitsWithin(windowMs: number, nowMs: number): number;
  expectedSha256(taskId: string, asset: AssetName): Promise<string>;
  snapshot(nowMs: number): Ledger;
  /** Calls `listener` after every entry or change; returns how to stop. */
  subscribe(listener: () => void): () => void;
  clear(): void;
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** Sums over all tasks. */
function totalsOf(tasks: readonly LedgerTask[]) {
  const bills = [...billsPerGeneration({ tasks }).values()];
  const refunds = tasks.filter((task) => task.refunded).length;
  const most = (of: (one: GenerationBills) => number) => Math.max(0, ...bills.map(of));
  return {
    tasksCreated: tasks.length,
    refunds,
    bills: tasks.length - refunds,
    maxBillsPerGeneration: most((one) => one.bills),
    maxBilledSubmitsPerGeneration: most((one) => one.billedSubmits),
    maxTasksPerGeneration: most((one) => one.tasks),
    callbacks: sum(tasks.map(({ callbacks }) => callbacks.length)),
  };
}

/** What is counted as it happens. */
const NONE = {
  submitsInFlight: 0,
  strayPolls: 0,
  leakedKeys: 0,
  maxSubmitsInWindow: 0,
  rateLimitedPolls: 0,
  calls: 0,
  maxCallsInWindow: 0,
  maxSubmitsInFlight: 0,
  maxTasksInFlight: 0,
};

/** `windowMs` is the window of `maxSubmitsInWindow`. */
export function createLedger(windowMs: number): LedgerBook {
  const submits: LedgerSubmit[] = [];
  const books = new Map<string, TaskBook>();
  const unfinished = new Set<Task>();
  const listeners = new Set<() => void>();
  const counts = { ...NONE };
  let callsAt: number[] = [];

  function changed(): void {
    for (const listener of listeners) listener();
  }

  function bookOf(taskId: string): TaskBook {
    const book = books.get(taskId);
    if (!book) throw new Error(`There is no task ${taskId} in the ledger.`);
    return book;
  }

  function submitsWithin(withinMs: number, nowMs: number): number {
    let count = 0;
    for (let at = submits.length - 1; at >= 0; at -= 1) {
      const submit = submits[at];
      if (!submit || submit.at <= nowMs - withinMs) break;
      count += 1;
    }
    return count;
  }

  function callArrived(at: number): void {
    counts.calls += 1;
    callsAt.push(at);
    const first = callsAt.findIndex((one) => one > at - windowMs);
    if (first > 0) callsAt = callsAt.slice(first);
    counts.maxCallsInWindow = Math.max(counts.maxCallsInWindow, callsAt.length);
  }

  function tasksInFlight(nowMs: number): number {
    for (const task of unfinished) if (task.finishesAt <= nowMs) unfinished.delete(task);
    return unfinished.size;
  }

  function assetEntry(book: TaskBook, asset: AssetName): LedgerAsset {
    const known = book.assets[asset];
    if (known) return known;
    const media = mediaOfTask(book.task, asset);
    const isCheap = media.sizeBytes <= CHEAP_HASH_BYTES;
    const entry: LedgerAsset = {
      sizeBytes: media.sizeBytes,
      sha256: isCheap ? createHash('sha256').update(wholeBytes(media)).digest('hex') : null,
      contentType: media.contentType,
    };
    book.assets[asset] = entry;
    return entry;
  }

  function entryOf(book: TaskBook, nowMs: number): LedgerTask {
    const { task } = book;
    const status = phaseOf(task, nowMs);
    return {
      taskId: task.taskId,
      submitSeq: task.submitSeq,
      generationId: task.generationId,
      generationKey: task.generationKey,
      prompt: task.prompt,
      promptSha256: book.promptSha256,
      callbackUrl: task.callbackUrl,
      createdAt: task.createdAt,
      visibleAt: Number.isFinite(task.visibleAt) ? task.visibleAt : null,
      finishesAt: Number.isFinite(task.finishesAt) ? task.finishesAt : null,
      status,
      billed: true,
      refunded: status === 'failed',
      polls: task.polls,
      pollOutcomes: [...book.pollOutcomes],
      minPollGapMs: book.minPollGapMs,
      endSeenAt: book.endSeenAt,
      callbacks: book.callbacks.map((callback) => ({ ...callback })),
      assetRequests: book.assetRequests.map((request) => ({ ...request })),
      assets: {
        video: assetEntry(book, 'video'),
        poster: assetEntry(book, 'poster'),
        lastFrame: assetEntry(book, 'lastFrame'),
      },
    };
  }

  return {
    submitArrived(at, runwayVersion) {
      const submit: LedgerSubmit = {
        seq: submits.length + 1,
        at,
        generationId: null,
        generationKey: null,
        prompt: null,
        callbackUrl: null,
        runwayVersion,
        inputs: [],
        script: '',
        faults: [],
        outcome: null,
        taskIds: [],
        httpStatus: null,
        answeredAt: null,
      };
      submits.push(submit);
      counts.submitsInFlight += 1;
      counts.maxSubmitsInFlight = Math.max(counts.maxSubmitsInFlight, counts.submitsInFlight);
      counts.maxSubmitsInWindow = Math.max(counts.maxSubmitsInWindow, submitsWithin(windowMs, at));
      callArrived(at);
      changed();
      return submit;
    },
    callArrived,
    pollRefused() {
      counts.rateLimitedPolls += 1;
      changed();
    },
    submitDone(submit, at) {
      submit.answeredAt = at;
      // A reset of the ledger may have come in between.
      if (submits[submit.seq - 1] === submit) counts.submitsInFlight -= 1;
      changed();
    },
    taskCreated(task) {
      books.set(task.taskId, {
        task,
        callbacks: [],
        assetRequests: [],
        pollOutcomes: [],
        lastPollAt: null,
        minPollGapMs: null,
        endSeenAt: null,
        promptSha256: createHash('sha256').update(task.prompt).digest('hex'),
        assets: {},
      });
      unfinished.add(task);
      counts.maxTasksInFlight = Math.max(counts.maxTasksInFlight, tasksInFlight(task.createdAt));
      changed();
    },
    pollArrived(task, at, outcome) {
      const book = task && books.get(task.taskId);
      if (!book) {
        counts.strayPolls += 1;
      } else {
        book.pollOutcomes.push(outcome);
        if (book.pollOutcomes.length > KEPT_POLL_OUTCOMES) book.pollOutcomes.shift();
        if (book.lastPollAt !== null) {
          book.minPollGapMs = Math.min(book.minPollGapMs ?? Infinity, at - book.lastPollAt);
        }
        book.lastPollAt = at;
        if (outcome === 'succeeded' || outcome === 'failed') book.endSeenAt ??= at;
      }
      changed();
    },
    callbackSent(task, callback) {
      books.get(task.taskId)?.callbacks.push(callback);
      changed();
    },
    assetRequested(task, request) {
      const requests = books.get(task.taskId)?.assetRequests;
      requests?.push(request);
      if (request.leakedKey) counts.leakedKeys += 1;
      if (requests && requests.length > KEPT_ASSET_REQUESTS) requests.shift();
      changed();
    },
    changed,
    task: (taskId) => books.get(taskId)?.task,
    tasksInFlight,
    submitsWithin,
    async expectedSha256(taskId, asset) {
      const book = bookOf(taskId);
      const entry = assetEntry(book, asset);
      if (entry.sha256 !== null) return entry.sha256;
      const sha256 = await sha256Of(mediaOfTask(book.task, asset));
      book.assets[asset] = { ...entry, sha256 };
      return sha256;
    },
    snapshot(nowMs) {
      const tasks = [...books.values()].map((book) => entryOf(book, nowMs));
      const { submitsInFlight: _, strayPolls, ...counted } = counts;
      const assetRequests = [...books.values()].flatMap(({ task }) => Object.values(task.assetRequests));
      return {
        at: nowMs,
        totals: {
          ...counted,
          ...totalsOf(tasks),
          submits: submits.length,
          rateLimited: submits.filter(({ outcome }) => outcome === 'rate-limited').length,
          polls: strayPolls + sum(tasks.map(({ polls }) => polls)),
          strayPolls,
          assetRequests: sum(assetRequests),
          windowMs,
        },
        submits: submits.map((submit) => ({
          ...submit,
          faults: [...submit.faults],
          inputs: [...submit.inputs],
          taskIds: [...submit.taskIds],
        })),
        tasks,
      };
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    clear() {
      submits.length = 0;
      books.clear();
      unfinished.clear();
      callsAt = [];
      Object.assign(counts, NONE);
      changed();
    },
  };
}
