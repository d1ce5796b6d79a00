/**
 * The ledger of the simulated provider: what was asked, what was created and billed, what was fetched. Nothing in the
 * simulator reads them to decide anything; tests and the chaos run read them to know the truth that a client cannot.
 *
 * A task is billed when it is created and refunded when it has failed, as the gateway does. Kept in memory only.
 */
import type { AssetName } from './media.js';
import type { Phase } from './task.js';

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
  /** Null for a big synthetic file until its checksum is asked for (`expectedSha256`). */
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
