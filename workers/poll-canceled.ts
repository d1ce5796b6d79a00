/**
 * The task of a canceled generation: the provider cannot be told, so it goes on, takes a slot and may be refunded. It is asked
 * for now and then until it has ended or can live no longer; the generation itself stays canceled.
 */
import type { Context } from './context.js';
import { askForTask } from './gated-poll.js';
import type { GenerationRecord } from '../src/generation/record.js';
import { withBill, type Submit } from '../src/generation/submits.js';
import type { Followed } from '../src/polling/poll-state.js';
import { readNews } from '../src/polling/read-answer.js';
import type { PollOutcome } from '../src/provider/outcomes.js';
import { done, hold, snooze, type Outcome } from '../src/queue/runner.js';

export async function pollCanceled(
  context: Context,
  followed: Followed,
  signal: AbortSignal,
): Promise<Outcome> {
  const asked = await askForTask(context, followed, signal);
  if (asked.kind === 'wait') return asked.holds === 'all' ? hold(asked.waitMs) : snooze(asked.waitMs);
  const record = await context.store.get(followed.id);
  if (!record) return done;
  if (record.rev !== followed.rev) return snooze(0);
  const { outcome } = asked;
  const now = context.now();
  const livesUntil = record.submits.find(({ taskId }) => taskId === followed.taskId)?.liveUntil ?? 0;
  if (hasEnded(context, followed, outcome) || livesUntil <= now) return end(context, record, outcome);
  const untilEnd = livesUntil - now;
  const isOverdue = followed.deadlineAt !== null && followed.deadlineAt <= now;
  if (isOverdue) return snooze(Math.min(context.config.LATE_CHECK_INTERVAL_MS, untilEnd));
  const { seen } = readNews(followed, outcome, now);
  return snooze(Math.min(await context.pacing.nextDelayMs(followed.kind, seen, followed.callback), untilEnd));
}

/** The provider says that it is over, or that there is no such task although it would show it by now. */
function hasEnded(
  { config, now }: Context,
  { visibleAt, acceptedAt }: Followed,
  { kind }: PollOutcome,
): boolean {
  if (kind === 'succeeded' || kind === 'succeededWithoutUrl' || kind === 'failed') return true;
  const inGrace = now() - (acceptedAt ?? 0) < config.NOT_VISIBLE_GRACE_MS;
  return kind === 'notVisible' && visibleAt === null && !inGrace;
}

/** Frees the slot, and writes down what the provider said of the bill. */
async function end({ store }: Context, record: GenerationRecord, outcome: PollOutcome): Promise<Outcome> {
  const submits = outcome.kind === 'failed' ? refunded(record, outcome) : record.submits;
  const change = { submits, taskGone: true, live: false, answer: outcome.answer };
  return (await store.amend(record, change)) ? done : snooze(0);
}

function refunded(
  { submits, taskId }: GenerationRecord,
  { billing: { refund, point } }: Extract<PollOutcome, { kind: 'failed' }>,
): Submit[] {
  if (point === 0) return withBill(submits, taskId, 'none');
  return refund !== null && refund > 0 ? withBill(submits, taskId, 'refunded') : [...submits];
}
