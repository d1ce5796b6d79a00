/**
 * The poll stage: asks the provider how the task is, and writes down what it says. It promises:
 *
 * - nothing that goes wrong with a poll ever fails a paid task; only the provider's own word does;
 * - a deadline ends our patience, not the task: after it a slow late check goes on, and a late success is adopted;
 * - waiting holds no worker slot and costs no attempt.
 */
import type { Context } from '../src/context.js';
import type { Charge, GenerationRecord } from '../src/generation/record.js';
import { nextPollDelayMs, notVisibleDelayMs, type ScheduleSettings } from '../src/generation/schedule.js';
import { announced, type Change } from '../src/generation/store.js';
import { advance, fail, hastenNotification, withWarning } from '../src/pipeline.js';
import type { Billing, PollOutcome } from '../src/provider/outcomes.js';
import { done, snooze, type Outcome } from '../src/runner.js';

export async function poll(context: Context, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const record = await context.store.get(generationId);
  if (record?.state === 'generating' || (record?.state === 'expired' && record.taskId !== null)) {
    return ask(context, record, signal);
  }
  if (record?.state === 'archiving') await context.queues.remind('archive', { generationId });
  return done;
}

async function ask(context: Context, record: GenerationRecord, signal: AbortSignal): Promise<Outcome> {
  const { provider, log } = context;
  const { id: generationId, taskId } = record;
  const outcome = await provider.poll(taskId ?? '', { signal });
  // Stopped by ourselves: that says nothing about the task, not even about its deadline.
  if (signal.aborted && outcome.kind === 'unavailable') return snooze(0);
  log.debug({ generationId, taskId, outcome: outcome.kind, httpStatus: outcome.answer.httpStatus }, 'polled');
  switch (outcome.kind) {
    case 'succeeded':
      return haul(context, record, outcome);
    case 'failed':
      return acceptFailure(context, record, outcome);
    case 'succeededWithoutUrl':
      return awaitUrl(context, record, outcome);
    case 'notVisible':
    case 'pending':
    case 'unavailable':
    case 'misconfigured':
      return awaitTask(context, record, outcome);
  }
}

/** The provider's last word on the bill of this task; an earlier one of the same generation may be billed besides. */
function chargeAfterFailure(
  { resubmits, otherTaskIds }: GenerationRecord,
  { point, refund }: Billing,
): Charge {
  if (resubmits > 0 || otherTaskIds.length > 0) return 'possible';
  if (refund !== null && refund > 0) return 'refunded';
  if (point === 0) return 'none';
  return 'possible';
}

async function haul(
  context: Context,
  record: GenerationRecord,
  { videoUrl, posterUrl, lastFrameUrl, answer }: Extract<PollOutcome, { kind: 'succeeded' }>,
): Promise<Outcome> {
  const moved = await advance(context, record, 'archiving', {
    set: {
      urls: JSON.stringify({ video: videoUrl, poster: posterUrl, lastFrame: lastFrameUrl }),
      progress: 100,
      linkRefreshed: null,
      visibleAt: record.visibleAt ?? context.now(),
      ...(record.state === 'expired' ? { late: 1 } : {}),
    },
    count: ['pollAttempts'],
    answer,
  });
  return moved ? done : snooze(0);
}

async function acceptFailure(
  context: Context,
  record: GenerationRecord,
  { code, message, mayResubmit, billing, answer }: Extract<PollOutcome, { kind: 'failed' }>,
): Promise<Outcome> {
  const said = message ?? 'The provider gave no reason; usually that is its content filter.';
  const failed = await fail(
    context,
    record,
    {
      code: 'task_failed',
      message: code ? `${said} (${code})` : said,
      stage: 'poll',
      retryable: mayResubmit !== 'never',
      charge: chargeAfterFailure(record, billing),
    },
    { answer, count: ['pollAttempts'] },
  );
  return failed ? done : snooze(0);
}

/** The provider says that it succeeded, and not where: a short grace, then a failure of its own, never a resubmit. */
async function awaitUrl(
  context: Context,
  record: GenerationRecord,
  { answer }: Extract<PollOutcome, { kind: 'succeededWithoutUrl' }>,
): Promise<Outcome> {
  const { config, now, store, dice } = context;
  const since = record.withoutUrlSince ?? now();
  const schedule = scheduleOf(context);
  if (now() - since < config.NO_URL_GRACE_MS) {
    const first = record.withoutUrlSince === null;
    const change: Change = {
      count: ['pollAttempts'],
      ...(first ? { set: { withoutUrlSince: since }, answer } : {}),
    };
    // Somebody decided otherwise while the provider was asked: look at the record again.
    if (!(await store.amend(record, change))) return snooze(0);
    return snooze(nextPollDelayMs(now() - since, schedule, dice()));
  }
  const failed = await fail(
    context,
    record,
    {
      code: 'no_asset_url',
      message: 'The provider says that the task succeeded, and gives no address of the video.',
      stage: 'poll',
      retryable: true,
      charge: 'charged',
    },
    { answer, count: ['pollAttempts'] },
  );
  return failed ? done : snooze(0);
}

type Unfinished = Extract<PollOutcome, { kind: 'notVisible' | 'pending' | 'unavailable' | 'misconfigured' }>;

async function awaitTask(context: Context, record: GenerationRecord, outcome: Unfinished): Promise<Outcome> {
  const { store, now, log } = context;
  const { id: generationId, taskId } = record;
  if (outcome.kind === 'misconfigured') {
    const reason = outcome.message;
    log.error(
      { generationId, taskId, alarm: 'misconfigured', reason },
      'polls are answered as if key or address were wrong',
    );
  }
  const visible = outcome.kind === 'pending';
  const seen = visible && record.visibleAt === null ? { visibleAt: now() } : {};
  const progressed =
    visible && outcome.progress !== null && outcome.progress !== record.progress
      ? { progress: outcome.progress }
      : {};
  const current = { ...record, visibleAt: record.visibleAt ?? (visible ? now() : null) };

  if (record.state === 'generating' && record.deadlineAt !== null && now() >= record.deadlineAt) {
    return expire(context, current, outcome, { ...seen, ...progressed });
  }
  const change = { set: { ...seen, ...progressed }, count: ['pollAttempts'] };
  if (!(await store.amend(record, change))) return snooze(0);
  if (announced(record, record.state, change) !== null) await hastenNotification(context, generationId);
  if (record.state === 'expired' && lateCheckIsOver(context, record)) return endLateCheck(context, record);
  return snooze(await delayAfter(context, current, outcome));
}

function scheduleOf({ config }: Context): ScheduleSettings {
  return {
    firstDelayMs: config.POLL_FIRST_DELAY_MS,
    minIntervalMs: config.POLL_MIN_INTERVAL_MS,
    maxIntervalMs: config.POLL_MAX_INTERVAL_MS,
  };
}

async function delayAfter(context: Context, record: GenerationRecord, outcome: Unfinished): Promise<number> {
  const { config, now, dice, standing, queues } = context;
  if (record.state === 'expired') return config.LATE_CHECK_INTERVAL_MS;
  const schedule = scheduleOf(context);
  const ageMs = now() - (record.acceptedAt ?? record.createdAt);
  const usualMs = nextPollDelayMs(ageMs, schedule, dice());
  const untilDeadline = (record.deadlineAt ?? Infinity) - now();
  switch (outcome.kind) {
    case 'misconfigured':
      return config.POLL_MAX_INTERVAL_MS;
    case 'unavailable': {
      if (outcome.answer.httpStatus !== 429) return Math.max(usualMs, outcome.retryAfterMs ?? 0);
      const holdMs = await standing.slowDown('poll', outcome.retryAfterMs);
      await queues.pauseFor('poll', holdMs);
      return Math.max(usualMs, holdMs);
    }
    case 'notVisible': {
      const inGrace = record.visibleAt === null && ageMs < config.NOT_VISIBLE_GRACE_MS;
      return Math.min(
        inGrace ? notVisibleDelayMs(ageMs, schedule, dice()) : config.POLL_MAX_INTERVAL_MS,
        untilDeadline,
      );
    }
    case 'pending':
      // One poll right at the deadline, rather than a whole interval after it.
      return Math.min(usualMs, Math.max(untilDeadline, 1));
  }
}

async function expire(
  context: Context,
  record: GenerationRecord,
  { kind, answer }: Unfinished,
  set: Record<string, number>,
): Promise<Outcome> {
  // Only the provider's own word says that it does not know the task; one that did not answer said nothing.
  const neverSeen = record.visibleAt === null && kind === 'notVisible';
  const failure = {
    code: neverSeen ? 'task_not_found' : 'deadline_exceeded',
    message: neverSeen
      ? 'The provider never showed the task it had accepted, and the deadline passed. A slow check goes on.'
      : 'The task was not finished by the deadline. It may still finish; a slow check goes on.',
    stage: 'poll',
    retryable: true,
    charge: record.charge,
  };
  const change = { set: { ...set, failure: JSON.stringify(failure) }, count: ['pollAttempts'], answer };
  if (!(await advance(context, record, 'expired', change))) return snooze(0);
  return snooze(context.config.LATE_CHECK_INTERVAL_MS);
}

/** After the deadline a task is looked at now and then, until `LATE_CHECK_FOR_MS` have passed. */
function lateCheckIsOver({ config, now }: Context, { finishedAt }: GenerationRecord): boolean {
  return now() - (finishedAt ?? now()) >= config.LATE_CHECK_FOR_MS;
}

/** Nothing is due any more; a callback still gets the task looked at. */
async function endLateCheck({ store }: Context, record: GenerationRecord): Promise<Outcome> {
  const said = record.warnings.some(({ code }) => code === 'late_check_ended');
  const warned = withWarning(record, 'late_check_ended', 'The task did not finish while it was watched.');
  return (await store.amend(record, { live: false, ...(said ? {} : { set: warned }) })) ? done : snooze(0);
}
