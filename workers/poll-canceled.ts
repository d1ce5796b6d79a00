/**
 * The task of a canceled generation: the provider cannot be told, so it goes on, takes a slot and may be refunded. It is asked
 * for now and then until it has ended or can live no longer; the generation itself stays canceled.
 */
import type { Context } from './context.js';
import { shownIn } from './confirm-task.js';
import { askForTask } from './gated-poll.js';
import type { GenerationRecord } from '../src/generation/record.js';
import type { Change } from '../src/generation/change.js';
import { withBill, withoutTask, type Submit } from '../src/generation/submits.js';
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
  const isOver = hasEnded(context, followed, outcome);
  // One that was only named is asked for until the provider says something of it.
  const isNamed = 'submits' in shownIn(record);
  if (isOver || (livesUntil <= now && !(isNamed && saysNothing(outcome))))
    return end(context, record, outcome);
  if (outcome.kind === 'pending' && isNamed) await context.store.amend(record, shownIn(record));
  const untilEnd = livesUntil > now ? livesUntil - now : Infinity;
  const isOverdue = followed.deadlineAt !== null && followed.deadlineAt <= now;
  if (isOverdue) return snooze(Math.min(context.config.LATE_CHECK_INTERVAL_MS, untilEnd));
  const { seen } = readNews(followed, outcome, now);
  return snooze(Math.min(await context.pacing.nextDelayMs(followed.kind, seen, followed.callback), untilEnd));
}

const saysNothing = ({ kind }: PollOutcome): boolean =>
  kind === 'unavailable' || kind === 'misconfigured' || kind === 'notVisible';

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
  const over = { taskGone: true, live: false, answer: outcome.answer };
  const change = { submits: record.submits, ...over, ...endOf(record, outcome) };
  return (await store.amend(record, change)) ? done : snooze(0);
}

function endOf(record: GenerationRecord, outcome: PollOutcome): Change {
  const { taskId } = record;
  if (outcome.kind === 'failed') return { submits: refunded(record, outcome) };
  if (outcome.kind !== 'notVisible') return shownIn(record);
  const { submits } = shownIn(record);
  if (!submits || taskId === null) return {};
  return { submits: withoutTask(record.submits, taskId), set: { taskId: null }, forget: [taskId] };
}

function refunded(
  { submits, taskId }: GenerationRecord,
  { billing: { refund, point } }: Extract<PollOutcome, { kind: 'failed' }>,
): Submit[] {
  if (point === 0) return withBill(submits, taskId, 'none');
  return refund !== null && refund > 0 ? withBill(submits, taskId, 'refunded') : [...submits];
}
