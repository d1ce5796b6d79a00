/**
 * The poll stage: asks the provider for the task, and records the answer. It promises:
 *
 * - a poll that fails never fails a paid task; only the provider's own word does;
 * - a deadline does not end the task: after it a slow late check goes on, and a late success is adopted;
 * - waiting holds no worker slot and costs no attempt;
 * - a poll that finds nothing new costs one round trip to Redis beside the queue's own;
 * - a callback's hint is never lost: not while a poll runs, and not before there was one.
 */
import type { Context } from './context.js';
import { confirmTasks, isNotItsOwn, isUnknown, shownIn } from './confirm-task.js';
import { askForTask, type GatedPoll } from './gated-poll.js';
import { pollCanceled } from './poll-canceled.js';
import { courseOf, readNews, type News } from '../src/polling/read-answer.js';
import type { Followed } from '../src/polling/poll-state.js';
import { lessonOfEnd, lessonOfGivingUp } from '../src/polling/observation.js';
import type { GenerationRecord } from '../src/generation/record.js';
import { withBill } from '../src/generation/submits.js';
import {
  easingDelayMs,
  hintedPollDelayMs,
  notVisibleDelayMs,
  soonestPollMs,
} from '../src/polling/schedule.js';
import { announced, type Change } from '../src/generation/change.js';
import { advance, expire, fail, hastenNotification, withWarning } from '../src/pipeline/advance.js';
import type { PollOutcome, Timing } from '../src/provider/outcomes.js';
import { done, hold, snooze, type Outcome } from '../src/queue/runner.js';

export async function poll(context: Context, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const followed = await context.following.begin(generationId);
  if (!followed) return done;
  const again = followed.unshown ? await confirmTasks(context, followed, signal) : null;
  const outcome = await pollFollowed(context, followed, signal);
  return outcome.kind === 'done' && again !== null ? again : outcome;
}

async function pollFollowed(context: Context, followed: Followed, signal: AbortSignal): Promise<Outcome> {
  if (followed.state === 'generating' || (followed.state === 'expired' && followed.taskId !== null)) {
    return ask(context, followed, signal);
  }
  if (followed.state === 'canceled' && followed.taskId !== null)
    return pollCanceled(context, followed, signal);
  if (followed.state === 'archiving') await context.queues.remind('archive', { generationId: followed.id });
  return done;
}

async function ask(context: Context, followed: Followed, signal: AbortSignal): Promise<Outcome> {
  const asked = await askForTask(context, followed, signal);
  if (asked.kind === 'wait') return waitUnasked(context, followed, asked);
  const { outcome, heldMs } = asked;
  if (await isNotItsOwn(context, followed, outcome)) return done;
  switch (outcome.kind) {
    case 'succeeded':
      return withRecord(context, followed, (record) => handToArchive(context, followed, record, outcome));
    case 'failed':
      return withRecord(context, followed, (record) => acceptFailure(context, followed, record, outcome));
    case 'succeededWithoutUrl':
      return withRecord(context, followed, (record) => awaitUrl(context, followed, record, outcome));
    case 'notVisible':
    case 'pending':
    case 'unavailable':
    case 'misconfigured':
      return awaitTask(context, followed, outcome, heldMs);
  }
}

/** The provider is not asked. A deadline that passes meanwhile counts, unless the poll only waits for its turn. */
async function waitUnasked(
  context: Context,
  followed: Followed,
  { waitMs, why, holds }: Extract<GatedPoll, { kind: 'wait' }>,
): Promise<Outcome> {
  const { now } = context;
  const { state, deadlineAt } = followed;
  const isOverdue = state === 'generating' && deadlineAt !== null && now() >= deadlineAt;
  if (isOverdue && why !== 'rate' && why !== 'stopped')
    return awaitTask(context, followed, notAsked(now()), waitMs);
  const news = readNews(followed, notAsked(now()), now());
  if (!(await writeDown(context, followed, news))) return snooze(0);
  return holds === 'all' ? hold(waitMs) : snooze(waitMs);
}

/** What a poll comes to while the provider is away and is not asked. */
function notAsked(at: number): Extract<PollOutcome, { kind: 'unavailable' }> {
  const message = 'The provider is away, and was not asked.';
  const answer = { at, call: 'poll', httpStatus: null, requestId: null, body: '', error: message } as const;
  return { kind: 'unavailable', reason: 'away', retryAfterMs: null, message, answer };
}

/** The whole record, for what needs it: read only when a poll brought something to write down. */
async function withRecord(
  { store }: Context,
  { id, rev, taskId }: Followed,
  act: (record: GenerationRecord) => Promise<Outcome>,
): Promise<Outcome> {
  const record = await store.get(id);
  if (!record) return done;
  // It moved on while the provider was asked: decide anew from where it is.
  return record.rev === rev && record.taskId === taskId ? act(record) : snooze(0);
}

/** Learns from the end of a task, once for each task. A late one was counted when it was given up. */
async function learnEnd({ pacing, work, now }: Context, followed: Followed, timing: Timing): Promise<void> {
  if (followed.state === 'expired' || followed.withoutUrlSince !== null) return;
  const course = courseOf(followed, timing, now());
  if (timing.endedAfterMs !== null && course.toldEndAgeMs !== null) {
    const delayMs = Math.max(0, course.ageMs - course.toldEndAgeMs);
    work.tell({ kind: 'detected', generationId: followed.id, delayMs });
  }
  // Without an address of ours no callback was to come, and none that is missing says anything.
  const hinted = followed.callback ? followed.hints > 0 : null;
  await pacing.learn(followed.kind, lessonOfEnd(course), hinted);
}

async function handToArchive(
  context: Context,
  followed: Followed,
  record: GenerationRecord,
  { videoUrl, posterUrl, lastFrameUrl, timing, answer }: Extract<PollOutcome, { kind: 'succeeded' }>,
): Promise<Outcome> {
  const moved = await advance(context, record, 'archiving', {
    set: {
      urls: JSON.stringify({ video: videoUrl, poster: posterUrl, lastFrame: lastFrameUrl }),
      progress: 100,
      ...(record.linkRefreshed ? { linkRefreshed: null } : {}),
      visibleAt: record.visibleAt ?? context.now(),
      ...(record.state === 'expired' ? { late: 1 } : {}),
    },
    // Also what was said to have failed before it was asked for again.
    submits: withBill(record.submits, record.taskId, 'charged'),
    answer,
  });
  if (!moved) return snooze(0);
  await learnEnd(context, followed, timing);
  return done;
}

async function acceptFailure(
  context: Context,
  followed: Followed,
  record: GenerationRecord,
  { code, message, mayResubmit, billing, timing, answer }: Extract<PollOutcome, { kind: 'failed' }>,
): Promise<Outcome> {
  const said = message ?? 'The provider gave no reason; usually that is its content filter.';
  const { refund, point } = billing;
  const refunded = refund !== null && refund > 0 ? 'refunded' : 'possible';
  const submits = withBill(record.submits, record.taskId, point === 0 ? 'none' : refunded);
  const failed = await fail(
    context,
    record,
    {
      code: 'task_failed',
      message: code ? `${said} (${code})` : said,
      stage: 'poll',
      retryable: mayResubmit !== 'never',
    },
    { answer, submits },
  );
  if (!failed) return snooze(0);
  await learnEnd(context, followed, timing);
  return done;
}

/** The provider reports success without an address: a short grace, then a failure of its own, never a resubmit. */
async function awaitUrl(
  context: Context,
  followed: Followed,
  record: GenerationRecord,
  { timing, answer }: Extract<PollOutcome, { kind: 'succeededWithoutUrl' }>,
): Promise<Outcome> {
  const { config, now, store, dice, pacing } = context;
  const since = record.withoutUrlSince ?? now();
  if (now() - since < config.NO_URL_GRACE_MS) {
    if (record.withoutUrlSince === null) {
      // The generation moved on while the provider was asked: look at the record again.
      const change = { set: { withoutUrlSince: since }, answer, ...shownIn(record) };
      if (!(await store.amend(record, change))) return snooze(0);
      await learnEnd(context, followed, timing);
    }
    const waitMs = easingDelayMs(now() - since, pacing.settings, dice());
    return snooze(waitMs, () => heedHint(context, followed));
  }
  const failed = await fail(
    context,
    record,
    {
      code: 'no_asset_url',
      message: 'The provider says that the task succeeded, and gives no address of the video.',
      stage: 'poll',
      retryable: true,
    },
    { answer },
  );
  return failed ? done : snooze(0);
}

type Unfinished = Extract<PollOutcome, { kind: 'notVisible' | 'pending' | 'unavailable' | 'misconfigured' }>;

async function awaitTask(
  context: Context,
  followed: Followed,
  outcome: Unfinished,
  heldMs: number,
): Promise<Outcome> {
  const { now, log } = context;
  const { id: generationId, taskId, state, deadlineAt } = followed;
  if (outcome.kind === 'misconfigured') {
    const reason = outcome.message;
    log.error(
      { generationId, taskId, alarm: 'misconfigured', reason },
      'polls are answered as if key or address were wrong',
    );
  }
  const news = readNews(followed, outcome, now());
  if (state === 'generating' && deadlineAt !== null && now() >= deadlineAt) {
    return withRecord(context, followed, (record) => giveUp(context, followed, record, news, outcome));
  }
  if (!(await writeDown(context, followed, news))) return snooze(0);
  if (state === 'expired' && isUnknown(context, followed, outcome))
    await withRecord(context, followed, (record) => freeSlot(context, record));
  if (state === 'expired' && lateCheckIsOver(context, followed)) {
    return withRecord(context, followed, (record) => endLateCheck(context, followed, record));
  }
  return snooze(await delayAfter(context, followed, news, outcome, heldMs), () =>
    heedHint(context, followed),
  );
}

/**
 * A callback that came while this poll ran was written down, and found no delayed job to bring forward. It counts its
 * hint before it tries, and this is called once the job is delayed: one of the two always sees the other.
 */
async function heedHint(
  { following, queues, now }: Context,
  { id, hints, beganAt, callback }: Followed,
): Promise<void> {
  // The provider has no address of ours.
  if (!callback && hints === 0) return;
  if ((await following.hints(id)) === hints) return;
  await queues.hastenTo('poll', id, soonestPollMs(beganAt, now()));
}

/** Only what changed. False when the generation moved on while the provider was asked. */
async function writeDown(context: Context, followed: Followed, { set }: News): Promise<boolean> {
  if (Object.keys(set).length === 0) return true;
  const { store, following } = context;
  const isShown = 'visibleAt' in set && 'submits' in shownIn(followed);
  if (!isShown && followed.notifyOn !== 'progress') return following.note(followed, set);
  const { id, rev, state } = followed;
  const record = await store.get(id);
  if (record?.rev !== rev) return false;
  const change: Change = { set, ...(isShown ? shownIn(record) : {}) };
  if (!(await store.amend(record, change))) return false;
  if (announced(record, state, change) !== null) await hastenNotification(context, id);
  return true;
}

async function delayAfter(
  context: Context,
  { state, kind, visibleAt, deadlineAt, callback }: Followed,
  { seen }: News,
  outcome: Unfinished,
  heldMs: number,
): Promise<number> {
  const { config, now, dice, pacing } = context;
  const askedForMs = outcome.kind === 'unavailable' ? (outcome.retryAfterMs ?? 0) : 0;
  const hintedMs = hintedPollDelayMs(seen.hintedAgoMs, pacing.settings, dice());
  if (state === 'expired') {
    const { LATE_CHECK_INTERVAL_MS } = config;
    if (outcome.kind === 'misconfigured') return LATE_CHECK_INTERVAL_MS;
    return Math.max(Math.min(LATE_CHECK_INTERVAL_MS, hintedMs), askedForMs);
  }
  // One poll right at the deadline, rather than a whole interval after it.
  const untilDeadline = Math.max(1, (deadlineAt ?? Infinity) - now());
  const usualMs = await pacing.nextDelayMs(kind, seen, callback);
  switch (outcome.kind) {
    case 'misconfigured':
      return Math.min(config.POLL_MAX_INTERVAL_MS, untilDeadline);
    case 'unavailable': {
      if (outcome.answer.httpStatus !== 429) return Math.min(Math.max(usualMs, askedForMs), untilDeadline);
      return Math.max(Math.min(usualMs, untilDeadline), heldMs);
    }
    case 'notVisible': {
      const inGrace = visibleAt === null && seen.ageMs < config.NOT_VISIBLE_GRACE_MS;
      const waitMs = inGrace
        ? notVisibleDelayMs(seen.ageMs, pacing.settings, dice())
        : config.POLL_MAX_INTERVAL_MS;
      return Math.min(waitMs, hintedMs, untilDeadline);
    }
    case 'pending':
      return Math.min(usualMs, untilDeadline);
  }
}

async function giveUp(
  context: Context,
  followed: Followed,
  record: GenerationRecord,
  { set, seen }: News,
  { kind, answer }: Unfinished,
): Promise<Outcome> {
  // Only the provider's own word says that it does not know the task; one that did not answer said nothing.
  const neverSeen = record.visibleAt === null && kind === 'notVisible';
  const taskGone = isUnknown(context, followed, { kind });
  const shown = 'visibleAt' in set ? shownIn(record) : {};
  if (!(await expire(context, record, { set, answer, neverSeen, taskGone, ...shown }))) return snooze(0);
  if (!neverSeen) await context.pacing.learn(followed.kind, lessonOfGivingUp(seen), null);
  return snooze(context.config.LATE_CHECK_INTERVAL_MS);
}

/** The slot was kept because the deadline passed before the provider could have shown the task. */
async function freeSlot({ store }: Context, record: GenerationRecord): Promise<Outcome> {
  await store.amend(record, { taskGone: true });
  return done;
}

/** After the deadline a task is looked at now and then, until `LATE_CHECK_FOR_MS` have passed; a hint begins them anew. */
function lateCheckIsOver({ config, now }: Context, { finishedAt, hintedAt }: Followed): boolean {
  return now() - Math.max(finishedAt ?? now(), hintedAt ?? 0) >= config.LATE_CHECK_FOR_MS;
}

/** Nothing is due any more; a callback still gets the task looked at, until the feed shows the end that the callback told. */
async function endLateCheck(
  { store, config }: Context,
  { hints }: Followed,
  record: GenerationRecord,
): Promise<Outcome> {
  // One that was only named is asked for until the provider says something of it.
  if ('submits' in shownIn(record)) return snooze(config.LATE_CHECK_INTERVAL_MS);
  const said = record.warnings.some(({ code }) => code === 'late_check_ended');
  const warned = withWarning(record, 'late_check_ended', 'The task did not finish while it was watched.');
  // A callback that came during this poll begins the late check anew.
  const expect = { hints: hints > 0 ? String(hints) : '' };
  return (await store.amend(record, { live: false, expect, ...(said ? {} : { set: warned }) }))
    ? done
    : snooze(0);
}
