/**
 * Where a generation can be, and which state may follow which. This table is the only place that says so; the
 * store refuses every transition that is not in it, and `docs/states.md` draws it.
 */

export const STATES = [
  'queued',
  'submitting',
  'unconfirmed',
  'generating',
  'archiving',
  'succeeded',
  'failed',
  'expired',
  'canceled',
] as const;

export type State = (typeof STATES)[number];

/** The stages of the flow: one queue, one worker file, one metric label and one env prefix each. */
export const STAGES = ['submit', 'poll', 'archive', 'notify'] as const;
export type Stage = (typeof STAGES)[number];
/** Stages that move a generation on; `notify` only tells about it. */
export type FlowStage = Exclude<Stage, 'notify'>;

const FOLLOWERS: Readonly<Record<State, readonly State[]>> = {
  // generating: a callback of an earlier submit brought the task id, so that no second one needs to leave.
  queued: ['submitting', 'generating', 'failed', 'canceled'],
  // queued: surely not accepted. generating: accepted.
  submitting: ['queued', 'generating', 'unconfirmed', 'failed', 'canceled'],
  // queued: an accepted second bill, or the late news that the submit surely was not accepted.
  unconfirmed: ['generating', 'queued', 'failed', 'canceled'],
  // unconfirmed: the provider does not know the task that a callback or an operator named.
  generating: ['archiving', 'failed', 'expired', 'canceled', 'unconfirmed'],
  archiving: ['succeeded', 'failed', 'canceled'],
  succeeded: [],
  // generating: a late callback revives `submission_unconfirmed`, or a redrive of the poll stage.
  failed: ['queued', 'generating', 'archiving'],
  expired: ['archiving', 'failed', 'generating', 'canceled'],
  canceled: [],
};

/** May `to` follow `from`? */
export function mayFollow(from: State, to: State): boolean {
  return FOLLOWERS[from].includes(to);
}

/** States in which nothing more happens by itself. `expired` counts: only its slow late check goes on. */
export const TERMINAL_STATES: readonly State[] = ['succeeded', 'failed', 'expired', 'canceled'];

/** Is this the end, as far as the app is concerned? */
export function isTerminal(state: State): boolean {
  return TERMINAL_STATES.includes(state);
}

/**
 * The stage whose job a generation in this state needs; null where nothing is to be done. `unconfirmed` belongs to
 * submit: its job waits for a callback and then follows the policy. `expired` belongs to poll: the late check.
 */
export function stageOf(state: State): FlowStage | null {
  switch (state) {
    case 'queued':
    case 'submitting':
    case 'unconfirmed':
      return 'submit';
    case 'generating':
    case 'expired':
      return 'poll';
    case 'archiving':
      return 'archive';
    case 'succeeded':
    case 'failed':
    case 'canceled':
      return null;
  }
}

/** The task of one in these states is polled until it ends, or until nothing more is expected of it. */
const FOLLOWS_ITS_TASK: readonly State[] = ['generating', 'expired', 'canceled'];

/** The task that polls follow; null where none is followed. */
export const followedTask = (state: State, taskId: string | null): string | null =>
  FOLLOWS_ITS_TASK.includes(state) ? taskId : null;
