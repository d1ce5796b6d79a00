/**
 * The record of a generation: one Redis hash, and the source of truth. Its fields are texts in Redis and typed here. The
 * public shape (`Generation`) is made from it. `v` is the version of the stored shape.
 */
import type { GenerationRequest, Warning } from './request.js';
import type { Charge, Submit } from './submits.js';
import type { Stage, State } from './states.js';

export type { Charge };

export type FailureCode =
  | 'request_rejected'
  /** Nothing was submitted: a picture that it starts from cannot be fetched, or is none that the provider takes. */
  | 'input_unusable'
  | 'submit_attempts_exhausted'
  | 'submission_unconfirmed'
  | 'task_failed'
  | 'task_not_found'
  | 'no_asset_url'
  | 'deadline_exceeded'
  | 'asset_expired'
  | 'asset_invalid'
  | 'asset_too_large'
  | 'asset_forbidden'
  | 'archive_attempts_exhausted'
  /** Nothing was submitted: the budget is spent. */
  | 'budget_exceeded'
  /** Nothing was submitted: there is a budget, and no price. */
  | 'price_unknown';

/** What the provider really said, bounded and with the API key redacted, kept so that an operator can read it. */
export interface RawAnswer {
  readonly at: number;
  readonly call: 'submit' | 'poll' | 'callback';
  /** HTTP status; null when no answer came. */
  readonly httpStatus: number | null;
  /** `X-Oneapi-Request-Id`, when present. */
  readonly requestId: string | null;
  /** The body as text, at most 2,048 characters. */
  readonly body: string;
  /** The transport error (code and message) when no whole answer came. */
  readonly error: string | null;
}

export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
  readonly stage: Stage;
  /** Can `retry` help? */
  readonly retryable: boolean;
  readonly charge: Charge;
}

export interface Asset {
  readonly key: string;
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly contentType: string;
}

export interface Assets {
  readonly video: Asset;
  readonly poster: Asset | null;
  readonly lastFrame: Asset | null;
}

/** Temporary links to the assets, as the provider last gave them. */
export interface AssetUrls {
  readonly video: string;
  readonly poster: string | null;
  readonly lastFrame: string | null;
}

/** What an app is told: every end, or each step as well. */
export type NotifyOn = 'end' | 'progress';

export type UnconfirmedPolicy = 'hold' | 'resubmit' | 'fail';

/** A generation as library, HTTP API and command line show it. Instants are epoch milliseconds. */
export interface Generation {
  readonly id: string;
  readonly state: State;
  readonly tenant: string;
  readonly idempotencyKey: string | null;
  readonly request: GenerationRequest;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly taskId: string | null;
  /** Further task ids seen for this generation: each may be a bill of its own. */
  readonly otherTaskIds: readonly string[];
  /** Percent, 0 to 100; null before the provider said any. */
  readonly progress: number | null;
  /** The video came after the deadline. */
  readonly late: boolean;
  readonly charge: Charge;
  /** How often each stage has begun its work. */
  readonly attempts: Readonly<Record<Stage, number>>;
  readonly failure: Failure | null;
  readonly assets: Assets | null;
  readonly warnings: readonly Warning[];
  readonly createdAt: number;
  /** When the last paid POST left; null before. */
  readonly submittedAt: number | null;
  readonly finishedAt: number | null;
  readonly updatedAt: number;
  readonly deadlineAt: number | null;
  /** Queued until these generations are over, since it starts from an asset of theirs. */
  readonly waitsFor: readonly string[];
}

/** A generation with what only the stages need. */
export interface GenerationRecord extends Generation {
  /** How many transitions there were: a change is made only to what it was decided from, never to a later round. */
  readonly rev: number;
  /** Mark of the operator's last decision, so that a command which is sent twice is known again. */
  readonly decision: string | null;
  /** Names this submit, so that no other writer of `submitting` is taken for it, also when a reconnect sends a command twice. */
  readonly submitNonce: string | null;
  /** Connections that failed before anything was sent. */
  readonly submitFailures: number;
  /** When its inputs were last found good; null: not yet. */
  readonly inputsCheckedAt: number | null;
  /** How often they could not be fetched. */
  readonly inputFailures: number;
  /** Every paid POST and every further task, in order: what was billed, and what takes a slot. */
  readonly submits: readonly Submit[];
  readonly acceptedAt: number | null;
  readonly unconfirmedAt: number | null;
  readonly onUnconfirmed: UnconfirmedPolicy | null;
  /** A task id that a callback brought while the submit was still under way. */
  readonly hintedTaskId: string | null;
  /** When the provider first showed the task. */
  readonly visibleAt: number | null;
  readonly withoutUrlSince: number | null;
  readonly urls: AssetUrls | null;
  /** A poll for a fresh link was already made, since the last one was dead. */
  readonly linkRefreshed: boolean;
  readonly archiveFailures: number;
  readonly runAt: number | null;
  readonly priority: number;
  /** Where the app wants to be told; null: nowhere. */
  readonly notifyUrl: string | null;
  readonly notifyOn: NotifyOn;
  /** Its place in fair order; null before it is due. */
  readonly turn: number | null;
  /** Which state it came to when (history.ts). */
  readonly trail: string;
  /** When the last poll began. */
  readonly polledAt: number | null;
  /** How many callbacks of the provider named it, and when the last of them came. */
  readonly hints: number;
  readonly hintedAt: number | null;
  /** The span of the app that enqueued it, as W3C Trace Context; null when it was in none. */
  readonly traceparent: string | null;
}

/** Fields as they stand in the hash. `null` removes a field. */
export type FieldPatch = Readonly<Record<string, string | number | null>>;

/** The public shape: the record without the fields that only the stages need. */
export function toGeneration(record: GenerationRecord): Generation {
  const {
    rev: _rev,
    decision: _decision,
    submitNonce: _nonce,
    submitFailures: _failures,
    inputsCheckedAt: _checked,
    inputFailures: _inputFailures,
    submits: _submits,
    acceptedAt: _accepted,
    unconfirmedAt: _unconfirmed,
    onUnconfirmed: _policy,
    hintedTaskId: _hint,
    visibleAt: _visible,
    withoutUrlSince: _without,
    urls: _urls,
    linkRefreshed: _refreshed,
    archiveFailures: _archiveFailures,
    runAt: _runAt,
    priority: _priority,
    notifyUrl: _notifyUrl,
    notifyOn: _notifyOn,
    turn: _turn,
    trail: _trail,
    polledAt: _polledAt,
    hints: _hints,
    hintedAt: _hintedAt,
    traceparent: _traceparent,
    ...generation
  } = record;
  return generation;
}
