/**
 * The books of the simulated provider: what was asked, what was created and billed, what was fetched. Nothing in the
 * simulator reads them to decide anything; tests and the chaos run read them to know the truth that a client cannot.
 *
 * A task is billed when it is created and refunded when it has failed, as the gateway does. Kept in memory only.
 */
import { createHash } from 'node:crypto';
import { ASSET_NAMES, sha256Of, wholeBytes, type AssetName } from './media.js';
import { mediaOfTask, phaseOf, type Phase, type Task } from './task.js';

/** A picture that a submit named, as the provider got it. */
export interface LedgerInput {
  readonly field: 'image' | 'last_image';
  readonly url: string;
  /** Null: it was not fetched, since it is on another machine, or nothing answered. */
  readonly httpStatus: number | null;
  readonly sizeBytes: number;
  /** Of the bytes that came, hex. */
  readonly sha256: string | null;
  /** Why the submit was refused for it. */
  readonly error: string | null;
}

/** One `POST /runway/pro/generate`, entered when it arrives. Instants are epoch milliseconds. */
export interface LedgerSubmit {
  readonly seq: number;
  readonly at: number;
  /** From a callback URL of the form `…/callbacks/runway/<generationId>/<token>`; else null. */
  generationId: string | null;
  generationKey: string | null;
  prompt: string | null;
  callbackUrl: string | null;
  /** `X-Runway-Version`, as received. */
  readonly runwayVersion: string | null;
  /** What was fetched of the pictures it names, before a task was created. */
  inputs: LedgerInput[];
  /** The script it came with, as text; the random faults it drew, by name. */
  script: string;
  faults: string[];
  /**
   * What was done with it: the step of the script (`ok`, `reset-after`, `429` …), or why it never came to that
   * (`unauthorized`, `bad-request`, `bad-input`, `bad-script`, `rate-limited`, `outage`). Null until decided.
   */
  outcome: string | null;
  /** The tasks it created: none, one, or two where the gateway doubled it. */
  taskIds: string[];
  /** Status that was sent, null while nothing was (or ever will be: reset, hang). */
  httpStatus: number | null;
  /** When the connection was done with. Null while it is open. */
  answeredAt: number | null;
}

export interface LedgerCallback {
  readonly at: number;
  readonly kind: 'final' | 'change' | 'early' | 'garbage';
  /** The provider's status word in it, null in garbage. */
  readonly status: string | null;
  readonly url: string;
  /** What the receiver answered; null when it could not be reached, or was not tried (see `error`). */
  httpStatus: number | null;
  error: string | null;
  doneAt: number | null;
}

export interface LedgerAssetRequest {
  readonly at: number;
  readonly asset: AssetName;
  /** The host it came to, with the port. */
  readonly host: string;
  /** The step of the script that answered it. */
  readonly step: string;
  readonly range: string | null;
  /** The API key came where it must not. */
  readonly leakedKey: boolean;
  httpStatus: number | null;
  sentBytes: number;
  doneAt: number | null;
}

export interface LedgerAsset {
  readonly sizeBytes: number;
  /** Null for a big synthetic file nobody asked the checksum of yet (`expectedSha256`). */
  readonly sha256: string | null;
  readonly contentType: string;
}

export interface LedgerTask {
  readonly taskId: string;
  readonly submitSeq: number;
  readonly generationId: string | null;
  readonly generationKey: string;
  readonly prompt: string;
  readonly promptSha256: string;
  readonly callbackUrl: string;
  readonly createdAt: number;
  /** Null when it never becomes visible, or never ends. */
  readonly visibleAt: number | null;
  readonly finishesAt: number | null;
  readonly status: Phase;
  readonly billed: boolean;
  readonly refunded: boolean;
  readonly polls: number;
  /** What the last 100 polls were answered: a step, or the phase that was shown. */
  readonly pollOutcomes: readonly string[];
  /** The shortest time between two polls of it, in ms; null before the second. */
  readonly minPollGapMs: number | null;
  /** When a poll was first answered with the end; null before. */
  readonly endSeenAt: number | null;
  readonly callbacks: readonly LedgerCallback[];
  /** The last 200 requests for its files. */
  readonly assetRequests: readonly LedgerAssetRequest[];
  /** The files as they should arrive, whatever the script does to them on the way. */
  readonly assets: Readonly<Record<AssetName, LedgerAsset>>;
}

export interface LedgerTotals {
  readonly submits: number;
  readonly tasksCreated: number;
  readonly refunds: number;
  /** Tasks that stay billed: created less refunded. */
  readonly bills: number;
  /** The most of those for one generation. More than 1 is a double bill, by client or gateway. */
  readonly maxBillsPerGeneration: number;
  /** The most submits of one generation that stay billed. More than 1 is a double bill the client caused. */
  readonly maxBilledSubmitsPerGeneration: number;
  /** The most tasks for one generation, refunded ones included. */
  readonly maxTasksPerGeneration: number;
  readonly rateLimited: number;
  /** Polls that were refused for the rate limit; they are in no other count. */
  readonly rateLimitedPolls: number;
  readonly polls: number;
  /** Polls for a task id that was never handed out. */
  readonly strayPolls: number;
  readonly callbacks: number;
  readonly assetRequests: number;
  /** Asset requests that carried the API key where it must not go. */
  readonly leakedKeys: number;
  /** Most submits that arrived within any `windowMs`. */
  readonly maxSubmitsInWindow: number;
  /** Submits and polls that arrived, whatever became of them. */
  readonly calls: number;
  /** Most submits and polls together that arrived within any `windowMs`. */
  readonly maxCallsInWindow: number;
  readonly windowMs: number;
  /** Most submits that were open at once. */
  readonly maxSubmitsInFlight: number;
  /** Most tasks that were unfinished at once. */
  readonly maxTasksInFlight: number;
}

export interface Ledger {
  readonly at: number;
  readonly totals: LedgerTotals;
  readonly submits: readonly LedgerSubmit[];
  readonly tasks: readonly LedgerTask[];
}

/** The bills of one generation. */
export interface GenerationBills {
  /** Tasks that stay billed. */
  readonly bills: number;
  /** Submits they came from: fewer than the bills where the gateway doubled one (`submit=double`). */
  readonly billedSubmits: number;
  /** Tasks, refunded ones included. */
  readonly tasks: number;
  readonly taskIds: readonly string[];
}

/** Bills by generation: by the id in the callback URL, else by the whole prompt. */
export function billsPerGeneration(ledger: Pick<Ledger, 'tasks'>): Map<string, GenerationBills> {
  const tasksOf = new Map<string, LedgerTask[]>();
  for (const task of ledger.tasks) {
    const before = tasksOf.get(task.generationKey);
    if (before) before.push(task);
    else tasksOf.set(task.generationKey, [task]);
  }
  const bills = new Map<string, GenerationBills>();
  for (const [key, tasks] of tasksOf) {
    const billed = tasks.filter((task) => task.billed && !task.refunded);
    bills.set(key, {
      bills: billed.length,
      billedSubmits: new Set(billed.map(({ submitSeq }) => submitSeq)).size,
      tasks: tasks.length,
      taskIds: tasks.map(({ taskId }) => taskId),
    });
  }
  return bills;
}

/** The generation a callback URL belongs to; null when it has another form (a placeholder). */
export function generationIdIn(callbackUrl: string): string | null {
  return /\/callbacks\/runway\/([^/?#]+)\/[^/?#]+/.exec(callbackUrl)?.[1] ?? null;
}

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

/** `windowMs` is the window of `maxSubmitsInWindow`. */
export function createLedger(windowMs: number): LedgerBook {
  const submits: LedgerSubmit[] = [];
  const books = new Map<string, TaskBook>();
  const unfinished = new Set<Task>();
  const listeners = new Set<() => void>();
  let submitsInFlight = 0;
  let strayPolls = 0;
  let leakedKeys = 0;
  let maxSubmitsInWindow = 0;
  let rateLimitedPolls = 0;
  let calls = 0;
  let maxCallsInWindow = 0;
  let callsAt: number[] = [];
  let maxSubmitsInFlight = 0;
  let maxTasksInFlight = 0;

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
    calls += 1;
    callsAt.push(at);
    const first = callsAt.findIndex((one) => one > at - windowMs);
    if (first > 0) callsAt = callsAt.slice(first);
    maxCallsInWindow = Math.max(maxCallsInWindow, callsAt.length);
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
      submitsInFlight += 1;
      maxSubmitsInFlight = Math.max(maxSubmitsInFlight, submitsInFlight);
      maxSubmitsInWindow = Math.max(maxSubmitsInWindow, submitsWithin(windowMs, at));
      callArrived(at);
      changed();
      return submit;
    },
    callArrived,
    pollRefused() {
      rateLimitedPolls += 1;
      changed();
    },
    submitDone(submit, at) {
      submit.answeredAt = at;
      // A reset of the ledger may have come in between.
      if (submits[submit.seq - 1] === submit) submitsInFlight -= 1;
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
      maxTasksInFlight = Math.max(maxTasksInFlight, tasksInFlight(task.createdAt));
      changed();
    },
    pollArrived(task, at, outcome) {
      const book = task && books.get(task.taskId);
      if (!book) {
        strayPolls += 1;
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
      if (request.leakedKey) leakedKeys += 1;
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
      const bills = [...billsPerGeneration({ tasks }).values()];
      const refunds = tasks.filter((task) => task.refunded).length;
      return {
        at: nowMs,
        totals: {
          submits: submits.length,
          tasksCreated: tasks.length,
          refunds,
          bills: tasks.length - refunds,
          maxBillsPerGeneration: bills.reduce((most, { bills: some }) => Math.max(most, some), 0),
          maxBilledSubmitsPerGeneration: bills.reduce(
            (most, { billedSubmits: some }) => Math.max(most, some),
            0,
          ),
          maxTasksPerGeneration: bills.reduce((most, { tasks: some }) => Math.max(most, some), 0),
          rateLimited: submits.filter(({ outcome }) => outcome === 'rate-limited').length,
          rateLimitedPolls,
          polls: strayPolls + tasks.reduce((sum, { polls }) => sum + polls, 0),
          strayPolls,
          callbacks: tasks.reduce((sum, { callbacks }) => sum + callbacks.length, 0),
          assetRequests: tasks.reduce(
            (sum, { taskId }) =>
              sum + ASSET_NAMES.reduce((n, name) => n + bookOf(taskId).task.assetRequests[name], 0),
            0,
          ),
          leakedKeys,
          maxSubmitsInWindow,
          calls,
          maxCallsInWindow,
          windowMs,
          maxSubmitsInFlight,
          maxTasksInFlight,
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
      submitsInFlight = 0;
      strayPolls = 0;
      leakedKeys = 0;
      maxSubmitsInWindow = 0;
      rateLimitedPolls = 0;
      calls = 0;
      maxCallsInWindow = 0;
      callsAt = [];
      maxSubmitsInFlight = 0;
      maxTasksInFlight = 0;
      changed();
    },
  };
}
