/**
 * The submit stage: the only code that spends money. It promises that at most one POST per generation leaves, unless
 * the provider surely did not accept the one before, or the user allows a second bill (policy `resubmit`, an operator).
 *
 * How: `submitting` with a nonce is in Redis before the POST leaves, and the task id is there before anything else
 * happens. A run that finds `submitting` cannot know what became of that POST, so the generation is `unconfirmed`.
 */
import { randomUUID } from 'node:crypto';
import type { Context } from './context.js';
import type { GenerationRecord } from '../src/generation/record.js';
import { billedSubmits, mayBeOut, withPost } from '../src/generation/submits.js';
import { priceOf, unknownPrice } from '../src/generation/price.js';
import { isTerminal, stageOf } from '../src/generation/states.js';
import { limitsOf } from '../src/limits/settings.js';
import type { CallResult, ReportOutcome } from '../src/limits/gate.js';
import { CHAINED_MS } from '../src/pipeline/enqueue.js';
import { inputLinks } from '../src/pipeline/input-files.js';
import { advance, fail, failOverdue, withWarning } from '../src/pipeline/advance.js';
import { declareUnconfirmed, exhaust, giveBack, reject, saveTask } from '../src/pipeline/settle-submit.js';
import { NOT_HINTED_YET } from '../src/polling/poll-state.js';
import { backoffMs } from '../src/polling/schedule.js';
import { callbackUrl } from '../src/provider/callback.js';
import type { PollOutcome, SubmitOutcome } from '../src/provider/outcomes.js';
import { done, hold, requeue, snooze, type Outcome } from '../src/queue/runner.js';
import { priorityOf } from '../src/store/queued-lua.js';
import type { Change } from '../src/generation/change.js';
import type { SubmitBegun } from '../src/store/store.js';
import type { SubmitCost, Turn, Verdict } from '../src/store/submit-turn.js';

const MAX_BACKOFF_MS = 60_000;
/** No provider knows this task: asking for it is free, and shows whether the provider is there. */
const PROBE_TASK = 'reelhaul-probe-no-such-task';
/** The provider has as many tasks as it may have: the queue is looked at again after so long. */
const FULL_MS = 250;
/** One that waits for a budget asks again by itself after so long at most. */
const BUDGET_LOOK_MS = 600_000;

export async function submit(context: Context, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const found = await context.store.turns.turn(generationId);
  if (!found) return done;
  const { record } = found;
  switch (record.state) {
    case 'queued':
      return submitQueued(context, found, signal);
    case 'submitting':
      await declareUnconfirmed(
        context,
        record,
        null,
        'The worker stopped between sending the request and saving its answer.',
      );
      return snoozeUnconfirmed(context, generationId, context.config.UNCONFIRMED_WAIT_MS);
    case 'unconfirmed':
      return followPolicy(context, record);
    case 'generating':
    case 'archiving':
    case 'succeeded':
    case 'failed':
    case 'expired':
    case 'canceled':
      return handOver(context, record);
  }
}

/** The transition of an earlier run is there, its job may be missing. */
async function handOver(
  { queues }: Context,
  { id: generationId, state }: GenerationRecord,
): Promise<Outcome> {
  const next = stageOf(state);
  if (next !== null && next !== 'submit') await queues.remind(next, { generationId });
  return done;
}

/** Is it its turn, is there room, may a call leave? Then it is submitted. */
async function submitQueued(
  context: Context,
  { record, budgeted, verdict }: Turn,
  signal: AbortSignal,
): Promise<Outcome> {
  const { config, store, gate, ledger } = context;
  if (verdict.kind !== 'go') return waitFor(context, record, verdict);
  const heldMs = ledger.holdMs();
  if (heldMs > 0) return hold(heldMs);
  const cost = costOf(record, config);
  // A generation that the budget has no room for uses none of the calls that the rate allows.
  const room: Verdict = budgeted ? await store.turns.room(record, cost) : { kind: 'go' };
  if (room.kind !== 'go') return waitFor(context, record, room);
  const postponed = await context.inputChecks.check(record);
  if (postponed !== null) return snooze(postponed.delayMs, postponed.afterwards);
  const pass = await gate.pass('submit', {
    generationId: record.id,
    signal,
    look: () => isProviderThere(context, signal),
  });
  if (pass.kind === 'wait') return pass.holds === 'all' ? hold(pass.waitMs) : snooze(pass.waitMs);

  const nonce = randomUUID();
  const submittedAt = context.now();
  const submits = withPost(record.submits, { at: submittedAt, price: cost.price, nonce });
  const begun = await begin(
    context,
    record,
    {
      live: true,
      set: {
        ...NOT_HINTED_YET,
        submitNonce: nonce,
        submittedAt,
        submitAttempts: record.attempts.submit + 1,
        callback: config.PUBLIC_URL === '' ? null : 1,
      },
      submits,
    },
    cost,
  );
  if (begun.kind === 'changed') return snooze(0);
  if (begun.kind !== 'begun') return waitFor(context, record, begun);
  return post(context, begun.record, { signal, probe: pass.probe });
}

/** Begins the submit. Redis may have written it although the call failed: nothing was sent for this nonce. */
async function begin(
  context: Context,
  record: GenerationRecord,
  change: Change & { readonly set: { readonly submitNonce: string } },
  cost: SubmitCost,
): Promise<SubmitBegun> {
  const { submitNonce } = change.set;
  try {
    const begun = await context.store.beginSubmit(record, change, cost);
    if (begun.kind !== 'changed') return begun;
    const own = await findOwn(context, record.id, submitNonce);
    return own === null ? begun : { kind: 'begun', record: own };
  } catch (error) {
    await giveBack(context, { id: record.id, submitNonce }, null);
    throw error;
  }
}

/** What keeps a queued generation back, and for how long. */
async function waitFor(
  context: Context,
  record: GenerationRecord,
  verdict: Exclude<Verdict, { readonly kind: 'go' }>,
): Promise<Outcome> {
  const { limits, queues, config, now } = context;
  switch (verdict.kind) {
    case 'requeue':
      return requeue(verdict.priority);
    case 'swap':
      await queues.changePriority('submit', verdict.generationId, verdict.theirs);
      return requeue(verdict.priority);
    case 'full':
      return hold(FULL_MS);
    case 'chained':
      return snooze(untilDeadline(record, CHAINED_MS, now()), () => hastenUnchained(context, record));
    case 'early':
      return snooze(untilDeadline(record, verdict.waitMs, now()));
    case 'capped':
      return snoozeWithoutRoom(context, record, verdict.waitMs);
    case 'over_day':
    case 'over_tenant_day':
      return waitForBudget(context, record, verdict);
    case 'unpriced':
      return refusePrice(context, record);
    case 'overdue':
      await failOverdue(context, record);
      return snooze(0);
    case 'unpublished':
      await limits.publish(limitsOf(config));
      return snooze(0);
  }
}

/** The other one may have ended between the look and the delay. */
async function hastenUnchained(
  { store, queues }: Context,
  { id, waitsFor }: GenerationRecord,
): Promise<void> {
  const found = await store.whereabouts(waitsFor);
  if (found.length < waitsFor.length || found.some(({ state }) => isTerminal(state)))
    await queues.hasten('submit', id);
}

/** A wait never outlasts the deadline. */
const untilDeadline = ({ deadlineAt }: GenerationRecord, waitMs: number, at: number): number =>
  Math.max(1, Math.min(waitMs, (deadlineAt ?? Infinity) - at));

/** A free call first: while the provider is away, a paid one would only become one more unconfirmed. */
async function isProviderThere({ provider, log }: Context, signal: AbortSignal): Promise<boolean> {
  const outcome = await provider.poll(PROBE_TASK, { signal });
  if (!isAway(outcome)) return true;
  log.warn({ stage: 'submit', httpStatus: outcome.answer.httpStatus }, 'the provider is still away');
  return false;
}

/** There is a budget, and no price for this request. */
async function refusePrice(context: Context, record: GenerationRecord): Promise<Outcome> {
  await fail(context, record, {
    code: 'price_unknown',
    message: `${unknownPrice(record.request)} Nothing was submitted.`,
    stage: 'submit',
    retryable: true,
  });
  return snooze(0);
}

async function waitForBudget(
  context: Context,
  record: GenerationRecord,
  { kind, waitMs }: Extract<Verdict, { readonly kind: 'over_day' | 'over_tenant_day' }>,
): Promise<Outcome> {
  const { config, log, store } = context;
  const whose = kind === 'over_day' ? "the day's budget" : `the day's budget of tenant ${record.tenant}`;
  if (config.OVER_BUDGET === 'fail') {
    await fail(context, record, {
      code: 'budget_exceeded',
      message: `Nothing was submitted: ${whose} has no room for it.`,
      stage: 'submit',
      retryable: true,
    });
    return snooze(0);
  }
  if (!record.warnings.some(({ code }) => code === 'waits_for_budget')) {
    const warned = withWarning(record, 'waits_for_budget', `It waited for a new day: ${whose} had no room.`);
    if (!(await store.amend(record, { set: warned }))) return snooze(0);
    log.warn({ generationId: record.id, alarm: 'budget', tenant: record.tenant }, `${whose} is spent`);
  }
  // What a budget holds back is woken when money is given back; this is for a wake-up that was lost.
  return snoozeWithoutRoom(context, record, Math.min(waitMs, BUDGET_LOOK_MS));
}

/** What made room while this job ran found no delayed job to bring forward: it is asked again once the job is delayed. */
function snoozeWithoutRoom(context: Context, record: GenerationRecord, waitMs: number): Outcome {
  const { store, queues, config, now } = context;
  return snooze(untilDeadline(record, waitMs, now()), async () => {
    const room = await store.turns.room(record, costOf(record, config));
    if (room.kind === 'go') await queues.hasten('submit', record.id);
  });
}

const costOf = ({ request }: GenerationRecord, { PRICES, UNKNOWN_PRICE }: Context['config']): SubmitCost => ({
  price: priceOf(request, PRICES),
  unpriced: UNKNOWN_PRICE,
});

/**
 * Did the write that seemed to lose its race land after all? A command whose answer went down with the connection is
 * sent again and then meets its own first run. Should another worker have called the submit unconfirmed meanwhile, it
 * is put right here: nothing was sent for this nonce.
 */
async function findOwn(context: Context, id: string, nonce: string): Promise<GenerationRecord | null> {
  const record = await context.store.get(id);
  if (record?.submitNonce !== nonce) return null;
  if (record.state === 'submitting') return record;
  if (record.state === 'unconfirmed') await giveBack(context, record, null);
  return null;
}

interface Leaving {
  readonly signal: AbortSignal;
  readonly probe: boolean;
}

/** `submitting` is written: now the POST leaves, unless Redis may not have kept that. */
async function post(context: Context, submitting: GenerationRecord, leaving: Leaving): Promise<Outcome> {
  const { config, ledger, log, provider, checkpoint, now } = context;
  const { id, submitNonce } = submitting;
  const nonce = submitNonce ?? '';
  if (!(await ledger.isSafe(id, nonce))) {
    await giveBack(context, submitting, null);
    log.warn({ generationId: id }, 'the ledger write did not come far enough in time; not submitted yet');
    return snooze(config.SUBMIT_BACKOFF_MS);
  }
  // Redis may have been restarted since the write, and have forgotten this one or another's.
  const heldSinceMs = ledger.holdMs();
  if (heldSinceMs > 0) {
    await giveBack(context, submitting, null);
    return snooze(heldSinceMs);
  }
  const attempt = submitting.attempts.submit;
  // After a freeze longer than its lock another worker may have taken this job, and may have decided on another POST.
  if (now() - (submitting.submittedAt ?? 0) > config.JOB_LOCK_MS) {
    await giveBack(context, submitting, null);
    return snooze(0);
  }
  ledger.sent({ generationId: id, nonce, attempt, sentAt: now() });

  checkpoint('before-send', id);
  const leftAt = now();
  const outcome = await provider.submit(submitting.request, {
    callbackUrl: callbackUrl(
      {
        publicUrl: config.PUBLIC_URL,
        placeholderUrl: config.CALLBACK_PLACEHOLDER_URL,
        secret: config.CALLBACK_SECRET[0] ?? '',
      },
      id,
    ),
    inputLinks: inputLinks(config, submitting),
    signal: leaving.signal,
    onSent: () => checkpoint('sent', id),
  });
  checkpoint('answered', id);
  const { kind, answer } = outcome;
  // With the task id: while Redis is away, this line may be the only place that knows it.
  const taskId = kind === 'accepted' ? outcome.taskId : null;
  log.info(
    { generationId: id, taskId, outcome: kind, httpStatus: answer.httpStatus, requestId: answer.requestId },
    'submit answered',
  );
  if (kind !== 'unconfirmed') ledger.answered(nonce, taskId ?? false);
  const tell = (result: CallResult) => report(context, id, { ...leaving, leftAgoMs: now() - leftAt, result });
  return conclude(context, submitting, outcome, { ...leaving, tell });
}

interface Left extends Leaving {
  /** Tells the gate what the call came to. */
  readonly tell: (result: CallResult) => Promise<ReportOutcome>;
}

/**
 * What a call came to is told to the gate. A Redis that fails here changes nothing about what is known of the submit: then
 * the gate does not hear of it.
 */
async function report(
  { gate, queues, log }: Context,
  generationId: string,
  { signal, ...told }: Leaving & { readonly leftAgoMs: number; readonly result: CallResult },
): Promise<ReportOutcome> {
  // Aborted by ourselves: that says nothing about the provider.
  if (signal.aborted && told.result.kind === 'away') return UNTOLD;
  try {
    const outcome = await gate.report('submit', { generationId, ...told });
    if (outcome.opened !== null) tellHeld(log, generationId, outcome.opened);
    if (outcome.closed) {
      log.info({ stage: 'submit' }, 'submits go on');
      await queues.release('submit');
    }
    return outcome;
  } catch (error) {
    log.warn({ generationId, err: error }, 'what a submit came to could not be told to the gate');
    return UNTOLD;
  }
}

const UNTOLD: ReportOutcome = { opened: null, closed: false, verdict: 'requeue', waitMs: 0 };

function tellHeld(
  log: Context['log'],
  generationId: string,
  why: Exclude<ReportOutcome['opened'], null>,
): void {
  const about = { generationId, stage: 'submit' };
  switch (why) {
    case 'rate_limited':
      return log.warn(about, 'the provider said to slow down: submits are held');
    case 'refused':
      return log.error(
        { ...about, alarm: 'refused' },
        'the provider refuses the key or its quota: submits are held',
      );
    case 'misrouted':
      return log.error(
        { ...about, alarm: 'misrouted' },
        'something in front of the API answered: check COMETAPI_BASE_URL; submits are held',
      );
    case 'away':
      return log.error(
        { ...about, alarm: 'provider_away' },
        'the provider seems to be away: submits are held',
      );
  }
}

/** Writes down what the POST came to. What is surely known is written before the gate is told. */
async function conclude(
  context: Context,
  submitting: GenerationRecord,
  outcome: SubmitOutcome,
  left: Left,
): Promise<Outcome> {
  const { tell } = left;
  switch (outcome.kind) {
    case 'accepted':
      await saveTask(context, submitting, outcome);
      await tell({ kind: 'accepted' });
      return done;

    case 'unconfirmed':
      await declareUnconfirmed(context, submitting, outcome.answer, outcome.message);
      await tell({ kind: isAway(outcome) ? 'away' : 'answered' });
      return snoozeUnconfirmed(context, submitting.id, context.config.UNCONFIRMED_WAIT_MS);

    case 'refused':
      await giveBack(context, submitting, outcome.answer);
      return snooze((await tell({ kind: 'refused', reason: outcome.reason })).waitMs);

    case 'misrouted':
      await giveBack(context, submitting, outcome.answer);
      return snooze((await tell({ kind: 'misrouted' })).waitMs);

    case 'rejected':
      return concludeRejected(context, submitting, outcome, left);

    case 'notAccepted':
      return concludeNotAccepted(context, submitting, outcome, left);
  }
}

/** A 403 may mean the key or this request: the gate tells which. */
async function concludeRejected(
  context: Context,
  submitting: GenerationRecord,
  outcome: Extract<SubmitOutcome, { kind: 'rejected' }>,
  { tell }: Left,
): Promise<Outcome> {
  if (!outcome.forbidden) {
    await reject(context, submitting, outcome);
    await tell({ kind: 'rejected' });
    return snooze(0);
  }
  const { verdict, waitMs } = await tell({ kind: 'forbidden' });
  if (verdict === 'reject') {
    await reject(context, submitting, outcome);
    return snooze(0);
  }
  await giveBack(context, submitting, outcome.answer);
  return snooze(waitMs);
}

async function concludeNotAccepted(
  context: Context,
  submitting: GenerationRecord,
  outcome: Extract<SubmitOutcome, { kind: 'notAccepted' }>,
  { tell, probe, signal }: Left,
): Promise<Outcome> {
  const { config, dice } = context;
  const { answer, reason, retryAfterMs } = outcome;
  if (reason === 'rateLimited') {
    await giveBack(context, submitting, answer);
    const { waitMs } = await tell({ kind: 'rateLimited', retryAfterMs });
    return waitMs > 0 ? hold(waitMs) : snooze(0);
  }
  const result = { kind: isAway(outcome) ? 'away' : 'answered' } as const;
  // We stopped it ourselves before anything was sent, or it only looked whether the provider is back: no try of its own.
  if (signal.aborted || probe) {
    await giveBack(context, submitting, answer);
    await tell(result);
    return snooze(0);
  }
  const failures = submitting.submitFailures + 1;
  if (failures >= config.SUBMIT_ATTEMPTS) {
    await exhaust(context, submitting, failures, outcome);
    await tell(result);
    return snooze(0);
  }
  const backoff = backoffMs(failures, config.SUBMIT_BACKOFF_MS, MAX_BACKOFF_MS, dice());
  await giveBack(context, submitting, answer, { submitFailures: failures });
  await tell(result);
  return snooze(Math.max(backoff, retryAfterMs ?? 0));
}

/** No answer, or only an error of the provider's: it says nothing about this one request. */
function isAway({ kind, answer }: SubmitOutcome | PollOutcome): boolean {
  if (kind !== 'unconfirmed' && kind !== 'notAccepted' && kind !== 'unavailable') return false;
  return answer.httpStatus === null || answer.httpStatus >= 500;
}

/** The wait for a callback, and then what the app or the operator wants done. */
async function followPolicy(context: Context, record: GenerationRecord): Promise<Outcome> {
  const { config, now, store } = context;
  const policy = record.onUnconfirmed ?? config.UNCONFIRMED_POLICY;
  const waitsFor = config.UNCONFIRMED_WAIT_MS;
  // The worker that made the POST said nothing of it: its call may go on for so long.
  const atLeast = policy === 'resubmit' && mayBeOut(record.submits) ? config.SUBMIT_TIMEOUT_MS : 0;
  const waitMs = (record.unconfirmedAt ?? 0) + Math.max(waitsFor, atLeast) - now();
  if (waitMs > 0) return snoozeUnconfirmed(context, record.id, waitMs);

  if (policy === 'resubmit' && billedSubmits(record.submits) <= 1) {
    // Another POST is another turn.
    const change = { set: { submitNonce: null, unconfirmedAt: null } };
    if (!(await advance(context, record, 'queued', change))) return snooze(0);
    return requeue(priorityOf((await store.get(record.id))?.turn ?? null));
  }
  if (policy === 'fail') {
    const message = 'It is not known whether the provider accepted the request, and no callback came.';
    await fail(context, record, {
      code: 'submission_unconfirmed',
      message,
      stage: 'submit',
      retryable: true,
    });
    return snooze(0);
  }
  // Held (also after one resubmit by policy, or it could go on for ever): nothing is due until an operator decides.
  return (await store.amend(record, { live: false })) ? done : snooze(0);
}

/** A decision or a late answer that came while this job ran found no delayed job to bring forward. */
function snoozeUnconfirmed({ store, queues }: Context, id: string, waitMs: number): Outcome {
  return snooze(waitMs, async () => {
    if ((await store.get(id))?.state === 'queued') await queues.hasten('submit', id);
  });
}
