/**
 * The outcomes of a call to the provider: two closed unions. Every answer (any status, any bytes, or none) becomes exactly one
 * member; an answer never throws. The rows are those of `docs/provider.md`.
 */
import type { RawAnswer } from '../generation/record.js';

/** What the provider says it took and gave back, in its own units; null where it says nothing. */
export interface Billing {
  readonly point: number | null;
  readonly refund: number | null;
}

/**
 * When things happened to a task, in ms after the provider took it, by its own clock alone: differences do not care
 * whether that clock agrees with ours. Null where it says nothing.
 */
export interface Timing {
  readonly startedAfterMs: number | null;
  readonly endedAfterMs: number | null;
}

/** Of every outcome: the answer as it is kept. */
interface Answered {
  readonly answer: RawAnswer;
}
interface Said {
  readonly message: string;
}

type Submitted =
  /** A task exists. `warning` is set when the answer carried a task id beside a code that is not a success. */
  | { readonly kind: 'accepted'; readonly taskId: string; readonly warning: string | null }
  /** Surely nothing was sent or taken. `connect` costs an attempt, `rateLimited` does not, `serverError` does. */
  | (Said & {
      readonly kind: 'notAccepted';
      readonly reason: 'connect' | 'rateLimited' | 'serverError';
      readonly retryAfterMs: number | null;
    })
  /** Final and not billed. `forbidden` marks a 403, of which several in a row mean that the key is refused. */
  | (Said & { readonly kind: 'rejected'; readonly code: string; readonly forbidden: boolean })
  /** The key or its quota is refused: no submit will pass. */
  | (Said & { readonly kind: 'refused'; readonly reason: 'key' | 'quota' })
  /** Something in front of the API answered. It says nothing about the request, and no submit will pass. */
  | (Said & { readonly kind: 'misrouted' })
  /** It cannot be known whether a task was created and billed. Never posted again automatically. */
  | (Said & { readonly kind: 'unconfirmed'; readonly reason: string });
export type SubmitOutcome = Answered & Submitted;

/** Of an answer that shows the task. */
interface Shown {
  readonly timing: Timing;
  /** What the task was asked for, where the answer shows it. */
  readonly prompt?: string;
}
interface Billed extends Shown {
  readonly billing: Billing;
}

type Polled =
  /** The provider does not know the task (yet). */
  | { readonly kind: 'notVisible' }
  /** Waiting or running. `progress` is a percentage, 0 to 100; null when the provider says none. */
  | (Shown & {
      readonly kind: 'pending';
      readonly running: boolean;
      readonly progress: number | null;
      readonly word: string;
      /** The word says that its work has not begun; an unknown word says nothing. */
      readonly queued: boolean;
    })
  | (Billed & {
      readonly kind: 'succeeded';
      readonly videoUrl: string;
      readonly posterUrl: string | null;
      readonly lastFrameUrl: string | null;
    })
  | (Billed & { readonly kind: 'succeededWithoutUrl' })
  /** The provider's verdict. `mayResubmit` follows Runway's failure codes; every resubmit is a new charge. */
  | (Billed & {
      readonly kind: 'failed';
      readonly code: string | null;
      readonly message: string | null;
      readonly mayResubmit: 'never' | 'once' | 'later';
    })
  /** Ask again later; says nothing about the task. */
  | (Said & { readonly kind: 'unavailable'; readonly reason: string; readonly retryAfterMs: number | null })
  /** Key, address or gateway is wrong (401, 403, a redirect, HTML with 200): an alarm, never a failed task. */
  | (Said & { readonly kind: 'misconfigured' });
export type PollOutcome = Answered & Polled;
