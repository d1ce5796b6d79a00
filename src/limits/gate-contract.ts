/** The types of the gate's questions and answers; `gate.ts` exports it all. */

/** A kind of call. `host:…` is a host of assets or a receiver of notifications. */
export type Target = 'submit' | 'poll' | `host:${string}`;

export interface PassOptions {
  readonly generationId: string;
  /** Ends the wait for a call of the rate at once. */
  readonly signal: AbortSignal;
  /**
   * A free call that asks whether the provider is there: made before a probe of an outage leaves, inside `pass`. False:
   * the provider is still away, which `pass` notes itself. `workers/submit.ts` polls an unknown task.
   */
  readonly look?: () => Promise<boolean>;
}

export type WaitReason = 'rate_limited' | 'refused' | 'misrouted' | 'away' | 'rate' | 'stopped';

export type Pass =
  /** The call may leave now. `probe` goes into the report. */
  | { readonly kind: 'go'; readonly probe: boolean }
  /**
   * `holds: 'all'`: no call of this kind may leave, so the queue is rate-limited (`hold`). `holds: 'generation'`: others
   * may, so only this job is delayed (`snooze`).
   */
  | {
      readonly kind: 'wait';
      readonly waitMs: number;
      readonly why: WaitReason;
      readonly holds: 'all' | 'generation';
    };

export type CallResult =
  /** Accepted: key and quota are good. */
  | { readonly kind: 'accepted' }
  /** Rejected for the request's own content (400 …): the key is good, nothing is known of the quota. */
  | { readonly kind: 'rejected' }
  | { readonly kind: 'rateLimited'; readonly retryAfterMs: number | null }
  | { readonly kind: 'refused'; readonly reason: 'key' | 'quota' }
  /** A 403: this request or model is not allowed, or the key is. */
  | { readonly kind: 'forbidden' }
  /** Something in front of the API answered. */
  | { readonly kind: 'misrouted' }
  /** No answer, or only a 5xx. */
  | { readonly kind: 'away' }
  /** Any other answer: the target is there. Nothing is known of the key. */
  | { readonly kind: 'answered' };

export interface Report {
  readonly generationId: string;
  /** As the `Pass` said that let the call leave. */
  readonly probe: boolean;
  /** How long ago the call left, in milliseconds. */
  readonly leftAgoMs: number;
  readonly result: CallResult;
}

export interface ReportOutcome {
  /** This call made the gate hold all calls of its kind: an alarm to raise. */
  readonly opened: 'rate_limited' | 'refused' | 'misrouted' | 'away' | null;
  /** This call ended an outage or a refusal: a queue that is rate-limited for it may be released. */
  readonly closed: boolean;
  /** Of `refused`, `misrouted` and `forbidden`: `reject` this generation for good, or `requeue` it for `waitMs`. */
  readonly verdict: 'reject' | 'requeue';
  /** How long the generation waits before it asks again, in milliseconds; 0 when the gate says nothing about it. */
  readonly waitMs: number;
}

export interface Outage {
  /** Since when calls are held, epoch ms; null while they are not. */
  readonly openAt: number | null;
  readonly probes: number;
  readonly probeAt: number | null;
}

export interface GateOverview {
  /** The provider refuses the key or its quota: one submit leaves per probe interval. */
  readonly refused: boolean;
  /** Something in front of the API answers submits: they are held and probed like those of a refused key. */
  readonly misrouted: boolean;
  /** How long calls are held after a 429, in milliseconds. */
  readonly holdMs: { readonly submit: number; readonly poll: number };
  /** Calls per second while they begin again after a 429; null when nothing slows them down. */
  readonly slowedTo: number | null;
  readonly breaker: { readonly submit: Outage; readonly poll: Outage };
}

export interface Gate {
  /** @throws when Redis fails: without its answer nothing leaves. */
  pass(target: Target, options: PassOptions): Promise<Pass>;
  report(target: Target, report: Report): Promise<ReportOutcome>;
  overview(): Promise<GateOverview>;
  /**
   * An operator says that key and provider work again: forgets every hold. Returns the ids of generations that were refused themselves,
   * whose jobs are delayed for it.
   */
  resume(): Promise<readonly string[]>;
  /** Writes the rate limits of this process for all. */
  publish(): Promise<void>;
  /** This process ends: nothing waits here any longer. */
  stop(): void;
}
