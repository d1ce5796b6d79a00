/**
 * The submit stage: the only code that spends money. It promises that at most one POST per generation leaves, unless
 * the one before was surely not accepted, or somebody accepted a second bill.
 *
 * How: `submitting` with a nonce is in Redis before the POST leaves, and the task id is there before anything else
 * happens. Whoever starts and finds `submitting` cannot know what became of that POST, so it is `unconfirmed`.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Context } from './context.js';
import { NOT_HINTED_YET } from '../src/polling/poll-state.js';
import type { GenerationRecord, RawAnswer } from '../src/generation/record.js';
import { backoffMs } from '../src/polling/schedule.js';
import { stageOf } from '../src/generation/states.js';
import type { Budget, OverBudget } from '../src/generation/change.js';
import { budgetOf, hasBudget } from '../src/limits/budget.js';
import { priceOf, unknownPrice } from '../src/generation/price.js';
import {
  adoptTask,
  advance,
  chargeBefore,
  fail,
  failOverdue,
  settle,
  withWarning,
} from '../src/pipeline/advance.js';
import { callbackUrl } from '../src/provider/callback.js';
import type { PollOutcome, SubmitOutcome } from '../src/provider/outcomes.js';
import { done, snooze, type Outcome } from '../src/queue/runner.js';

const MAX_BACKOFF_MS = 60_000;
/** No provider knows this task: asking for it is free, and shows whether anybody is there. */
const PROBE_TASK = 'reelhaul-probe-no-such-task';
const REJOIN_MS = 1000;
/** How long the saving of a task id is tried when Redis refuses writes. After that the log line is all that is left. */
const SAVE_FOR_MS = 600_000;

export async function submit(context: Context, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const record = await context.store.get(generationId);
  if (!record) return done;
  switch (record.state) {
    case 'queued':
      return beginSubmit(context, record, signal);
    case 'submitting':
      return declareUnconfirmed(
        context,
        record,
        null,
        'The worker stopped between sending the request and saving its answer.',
      );
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

async function beginSubmit(
  context: Context,
  record: GenerationRecord,
  signal: AbortSignal,
): Promise<Outcome> {
  const { config, store, dispatch, now, ledger } = context;
  const { id } = record;
  if (record.deadlineAt !== null && record.deadlineAt <= now()) {
    await failOverdue(context, record);
    return snooze(0);
  }
  const price = priceOf(record.request, config.PRICES);
  const budget = budgetOf(config, record.tenant);
  const leave = await awaitLeave(context, record, { price, budget }, signal);
  if (leave.kind !== 'leave') return leave;
  const nonce = randomUUID();
  const begun = await store.beginSubmit(
    record,
    {
      live: true,
      set: { ...NOT_HINTED_YET, submitNonce: nonce, submittedAt: now(), charge: 'possible' },
      count: ['submitAttempts'],
      bill: 'possible',
      price,
    },
    budget,
  );
  if (begun === 'overDay' || begun === 'overTenantDay') return waitForBudget(context, record, begun);
  if (begun === 'changed' && !(await isMine(context, id, nonce))) return snooze(0);
  // Whoever is next gets its job now that this one has left the line.
  void dispatch.soon();
  const submitting = {
    ...record,
    state: 'submitting' as const,
    submitNonce: nonce,
    charge: chargeBefore(record),
  };

  if (!(await ledger.isSafe(id, nonce))) {
    await giveBack(context, submitting, null);
    context.log.warn(
      { generationId: id },
      'the ledger write did not come far enough in time; not submitted yet',
    );
    return snooze(config.SUBMIT_BACKOFF_MS);
  }
  // Redis may have been restarted since the write, and have forgotten this one or another's.
  const heldSinceMs = ledger.holdMs();
  if (heldSinceMs > 0) {
    await giveBack(context, submitting, null);
    return snooze(heldSinceMs);
  }
  ledger.sent({ generationId: id, nonce, attempt: record.attempts.submit + 1 });

  context.checkpoint('before-send', id);
  const leftAt = now();
  const outcome = await context.provider.submit(record.request, {
    callbackUrl: callbackUrl(
      {
        publicUrl: config.PUBLIC_URL,
        placeholderUrl: config.CALLBACK_PLACEHOLDER_URL,
        secret: config.CALLBACK_SECRET[0] ?? '',
      },
      id,
    ),
    signal,
    onSent: () => context.checkpoint('sent', id),
  });
  context.checkpoint('answered', id);
  return conclude(context, submitting, outcome, { signal, probe: leave.probe, leftAt });
}

/** All that may keep a submit back, before anything is written. `probe` as in `Turn`. */
async function awaitLeave(
  context: Context,
  record: GenerationRecord,
  cost: Cost,
  signal: AbortSignal,
): Promise<{ readonly kind: 'leave'; readonly probe: boolean } | Outcome> {
  const { line, rate, ledger } = context;
  const turn = await line.begin(record);
  if (turn.kind === 'wait') return snooze(turn.waitMs);
  if (turn.kind === 'inLine') return done;
  const heldMs = ledger.holdMs();
  if (heldMs > 0) return snooze(heldMs);
  // Those that may not be paid for take no call from those that may.
  const unpaid = await withoutRoom(context, record, cost, turn.budgeted);
  if (unpaid) return unpaid;
  if (turn.probe && !(await isProviderBack(context, signal))) return snooze(0);
  const call = await rate.take('submit', signal);
  if (call === 'stopped') return snooze(0);
  if (call === 'now' || turn.probe) return { kind: 'leave', probe: turn.probe };
  // Meanwhile others may have been told to slow down, been refused, or found nobody; and a worker may have brought a budget.
  const again = await line.begin(record);
  if (again.kind === 'wait') return snooze(again.waitMs);
  if (again.kind === 'inLine') return done;
  const nowUnpaid = await withoutRoom(context, record, cost, again.budgeted);
  if (nowUnpaid) return nowUnpaid;
  if (again.probe && !(await isProviderBack(context, signal))) return snooze(0);
  return { kind: 'leave', probe: again.probe };
}

/** What a submit will cost, in millionths, and what may be spent as this process has it. */
interface Cost {
  readonly price: number | null;
  readonly budget: Budget;
}

/** What comes next when the budget in force does not allow it; null when it does. `budgeted` as in `Turn`. */
async function withoutRoom(
  context: Context,
  record: GenerationRecord,
  { price, budget }: Cost,
  budgeted: boolean | null,
): Promise<Outcome | null> {
  if (!(budgeted ?? hasBudget(budget))) return null;
  const over = await context.store.overBudget(record, price, budget);
  if (over === 'unpriced')
    return context.config.UNKNOWN_PRICE === 'refuse' ? refusePrice(context, record) : null;
  return over === null ? null : waitForBudget(context, record, over);
}

/** A free call first: while that finds nobody, a paid one would only become one more that nobody can confirm. */
async function isProviderBack(
  { provider, breaker, rate, log }: Context,
  signal: AbortSignal,
): Promise<boolean> {
  if ((await rate.take('poll', signal)) === 'stopped') return false;
  const outcome = await provider.poll(PROBE_TASK, { signal });
  if (!isAway(outcome)) return true;
  log.warn({ stage: 'submit', httpStatus: outcome.answer.httpStatus }, 'the provider is still away');
  if (!signal.aborted) await breaker.failed('submit');
  return false;
}

/** There is a budget, and nobody knows what this one costs. */
async function refusePrice(context: Context, record: GenerationRecord): Promise<Outcome> {
  await fail(context, record, {
    code: 'price_unknown',
    message: `${unknownPrice(record.request)} Nothing was submitted.`,
    stage: 'submit',
    retryable: true,
    charge: chargeBefore(record),
  });
  return snooze(0);
}

async function waitForBudget(context: Context, record: GenerationRecord, over: OverBudget): Promise<Outcome> {
  const { config, line, log, store } = context;
  const whose = over === 'overDay' ? "the day's budget" : `the day's budget of tenant ${record.tenant}`;
  if (config.OVER_BUDGET === 'fail') {
    await fail(context, record, {
      code: 'budget_exceeded',
      message: `Nothing was submitted: ${whose} has no room for it.`,
      stage: 'submit',
      retryable: true,
      charge: chargeBefore(record),
    });
    return snooze(0);
  }
  if (!record.warnings.some(({ code }) => code === 'waits_for_budget')) {
    const warned = withWarning(record, 'waits_for_budget', `It waited for a new day: ${whose} had no room.`);
    if (!(await store.amend(record, { set: warned }))) return snooze(0);
    log.warn({ generationId: record.id, alarm: 'budget', tenant: record.tenant }, `${whose} is spent`);
  }
  await line.putOff(record, record.deadlineAt);
  await context.dispatch.soon();
  return done;
}

/**
 * Did the write that seemed to lose its race land after all? A command whose answer went down with the connection is
 * sent again and then meets its own first run. Should another worker have called the submit unconfirmed meanwhile, it
 * is put right here: nothing was sent for this nonce.
 */
async function isMine(context: Context, id: string, nonce: string): Promise<boolean> {
  const record = await context.store.get(id);
  if (record?.submitNonce !== nonce) return false;
  if (record.state === 'submitting') return true;
  if (record.state === 'unconfirmed') await giveBack(context, record, null);
  return false;
}

async function conclude(
  context: Context,
  record: GenerationRecord,
  outcome: SubmitOutcome,
  {
    signal,
    probe,
    leftAt,
  }: { readonly signal: AbortSignal; readonly probe: boolean; readonly leftAt: number },
): Promise<Outcome> {
  const { config, standing, rate, log, now, dice, ledger } = context;
  const { id: generationId } = record;
  const { kind, answer } = outcome;
  // With the task id: while Redis is away, this line may be the only place that knows it.
  const taskId = kind === 'accepted' ? outcome.taskId : null;
  log.info(
    { generationId, taskId, outcome: kind, httpStatus: answer.httpStatus, requestId: answer.requestId },
    'submit answered',
  );
  if (taskId !== null) ledger.accepted(record.submitNonce ?? '', taskId);
  else if (kind !== 'unconfirmed') ledger.notAccepted(record.submitNonce ?? '');
  const away = isAway(outcome);
  const after = away ? () => noteAway(context, signal) : () => noteAnswered(context, probe);

  switch (outcome.kind) {
    case 'accepted':
      await saveTask(context, generationId, outcome.taskId, outcome);
      await noteWelcome(context);
      await after();
      return done;

    case 'unconfirmed': {
      const next = await declareUnconfirmed(context, record, answer, outcome.message);
      await after();
      return next;
    }

    case 'refused':
    case 'misrouted': {
      await giveBack(context, record, answer);
      await after();
      const reason = kind === 'misrouted' ? `misrouted: ${outcome.message}` : outcome.message;
      return waitForStanding(context, generationId, reason);
    }

    case 'rejected': {
      if (outcome.forbidden && (await standing.forbidden(generationId))) {
        await giveBack(context, record, answer);
        await after();
        return waitForStanding(context, generationId, outcome.message);
      }
      if (!outcome.forbidden) await noteWelcome(context);
      await reject(context, record, outcome);
      await after();
      return snooze(0);
    }

    case 'notAccepted': {
      if (outcome.reason === 'rateLimited') {
        await giveBack(context, record, answer);
        const holdMs = await standing.slowDown('submit', outcome.retryAfterMs);
        await rate.slowDown(holdMs, now() - leftAt);
        await after();
        return snooze(holdMs);
      }
      if (signal.aborted) {
        // We stopped it ourselves, before anything was sent: that is no try.
        await giveBack(context, record, answer);
        return snooze(0);
      }
      if (probe) {
        // It only looked whether the provider is back, for all: that is no try of its own.
        await giveBack(context, record, answer);
        await after();
        return snooze(0);
      }
      const failures = record.submitFailures + 1;
      if (failures >= config.SUBMIT_ATTEMPTS) {
        await exhaust(context, record, outcome.message, answer, failures);
        await after();
        return snooze(0);
      }
      const backoff = backoffMs(failures, config.SUBMIT_BACKOFF_MS, MAX_BACKOFF_MS, dice());
      const waitMs = Math.max(backoff, outcome.retryAfterMs ?? 0);
      // Back in line, so that it keeps nobody waiting meanwhile.
      await giveBack(context, record, answer, { submitFailures: failures }, waitMs);
      await after();
      return done;
    }
  }
}

/** Nobody was there, or only an error of the provider's: it says nothing about this one request. */
function isAway({ kind, answer }: SubmitOutcome | PollOutcome): boolean {
  if (kind !== 'unconfirmed' && kind !== 'notAccepted' && kind !== 'unavailable') return false;
  return answer.httpStatus === null || answer.httpStatus >= 500;
}

async function noteAway({ breaker, log }: Context, signal: AbortSignal): Promise<void> {
  if (signal.aborted || !(await breaker.failed('submit'))) return;
  log.error({ stage: 'submit', alarm: 'provider_away' }, 'the provider seems to be away: submits wait');
}

async function noteAnswered({ breaker, dispatch, log }: Context, probe: boolean): Promise<void> {
  if (!(await breaker.worked('submit', probe))) return;
  log.info({ stage: 'submit' }, 'the provider is back: submits go on');
  await dispatch.wake();
}

/** Key and quota are good: those that wait for the next look at them need not. */
async function noteWelcome({ standing, dispatch }: Context): Promise<void> {
  if (await standing.accepted()) await dispatch.wake();
}

/**
 * Applies what is known for sure about this very submit, wherever the generation stands by now: another worker may have
 * called it unconfirmed in the meantime, or somebody canceled it. A task that a callback brought proves the answer wrong
 * and wins. What is known must not be lost to a Redis that refuses writes for a while, so it is tried until it stands.
 */
function applyVerdict(
  context: Context,
  { id, submitNonce }: GenerationRecord,
  answer: RawAnswer | null,
  surelyNotBilled: boolean,
  apply: (record: GenerationRecord, expect: Record<string, string>) => Promise<boolean>,
): Promise<void> {
  const decide = async (record: GenerationRecord): Promise<boolean> => {
    if (record.submitNonce !== submitNonce) return true;
    if (record.state === 'canceled' && record.taskId === null && surelyNotBilled) {
      return context.store.amend(record, {
        set: { charge: chargeBefore(record) },
        bill: 'none',
        taskGone: true,
        expect: { taskId: '' },
        answer,
      });
    }
    if (record.state !== 'submitting' && record.state !== 'unconfirmed') return true;
    if (record.hintedTaskId !== null) {
      await adoptTask(context, id, record.hintedTaskId, { source: 'submit' });
      return true;
    }
    return apply(record, { submitNonce: submitNonce ?? '', hintedTaskId: '' });
  };
  return insist(context, { generationId: id, alarm: 'verdict_not_saved' }, () =>
    settle(
      context,
      id,
      async (record) => ((await decide(record)) ? { settled: undefined } : 'again'),
      undefined,
    ),
  );
}

/**
 * Surely not accepted: back to the queue, as if nothing had been tried. It keeps its job, or with `waitMs` stands in line
 * again after so long.
 */
function giveBack(
  context: Context,
  submitting: GenerationRecord,
  answer: RawAnswer | null,
  set: Record<string, number> = {},
  waitMs: number | null = null,
): Promise<void> {
  return applyVerdict(context, submitting, answer, true, async (record, expect) => {
    // Whoever called it unconfirmed left its job waiting for a callback.
    const wasDoubted = record.state === 'unconfirmed';
    const moved = await advance(context, record, 'queued', {
      set: { ...set, submitNonce: null, unconfirmedAt: null, charge: chargeBefore(record) },
      expect,
      answer,
      bill: 'none',
      taskGone: true,
      place: waitMs === null || wasDoubted ? 'ready' : { afterMs: waitMs },
    });
    if (moved && wasDoubted) await context.queues.hasten('submit', record.id);
    return moved;
  });
}

function reject(
  context: Context,
  submitting: GenerationRecord,
  { code, message, answer }: Extract<SubmitOutcome, { kind: 'rejected' }>,
): Promise<void> {
  const text = code ? `${message} (${code})` : message;
  return applyVerdict(context, submitting, answer, true, (record, expect) =>
    fail(
      context,
      record,
      {
        code: 'request_rejected',
        message: text,
        stage: 'submit',
        retryable: false,
        charge: chargeBefore(record),
      },
      { expect, answer, bill: 'none', taskGone: true },
    ),
  );
}

function exhaust(
  context: Context,
  submitting: GenerationRecord,
  message: string,
  answer: RawAnswer,
  failures: number,
): Promise<void> {
  const text = `The provider could not be reached in ${failures} tries. The last: ${message}`;
  return applyVerdict(context, submitting, answer, true, (record, expect) =>
    fail(
      context,
      record,
      {
        code: 'submit_attempts_exhausted',
        message: text,
        stage: 'submit',
        retryable: true,
        charge: chargeBefore(record),
      },
      { expect, answer, bill: 'none', taskGone: true },
    ),
  );
}

async function waitForStanding(context: Context, generationId: string, message: string): Promise<Outcome> {
  const { standing, config, log } = context;
  await standing.refused();
  log.error(
    { generationId, alarm: 'refused', reason: message },
    'the provider refuses the key or its quota, or its address is wrong: submitting waits',
  );
  return snooze(config.REFUSED_PROBE_MS);
}

/**
 * A paid task exists and only this process knows its id: keep trying to save it for as long as Redis refuses, and say
 * it in the log, from where an operator can still bring it (`decide adopt`).
 */
async function saveTask(
  context: Context,
  generationId: string,
  taskId: string,
  { answer, warning }: { answer: RawAnswer; warning: string | null },
): Promise<void> {
  const adoption = await insist(context, { generationId, taskId, alarm: 'task_not_saved' }, () =>
    adoptTask(context, generationId, taskId, { source: 'submit', answer, warning }),
  );
  if (adoption !== 'missing') return;
  context.log.error(
    { generationId, taskId, alarm: 'generation_forgotten' },
    'Redis forgot a generation whose task exists and is billed',
  );
}

/** Does it again until it stands, saying so each time: giving up would turn what is known into what nobody can know. */
async function insist<T>(context: Context, said: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const giveUpAt = context.now() + SAVE_FOR_MS;
  for (let failures = 1; ; failures++) {
    try {
      return await work();
    } catch (error) {
      context.log.error({ ...said, err: error }, 'what the provider answered could not be saved yet');
      if (context.now() > giveUpAt) throw error;
      await wait(backoffMs(failures, 100, 5000, context.dice()));
    }
  }
}

async function declareUnconfirmed(
  context: Context,
  submitting: GenerationRecord,
  answer: RawAnswer | null,
  reason: string,
): Promise<Outcome> {
  const { log, now, config } = context;
  await applyVerdict(context, submitting, answer, false, async (record, expect) => {
    if (record.state === 'unconfirmed')
      return answer === null || context.store.amend(record, { expect, answer });
    const event = { type: 'unconfirmed', text: reason };
    const change = { set: { unconfirmedAt: now(), charge: 'possible' }, expect, answer, event };
    return advance(context, record, 'unconfirmed', change);
  });
  log.error(
    { generationId: submitting.id, alarm: 'unconfirmed', reason },
    'it is not known whether this submit was accepted',
  );
  return snooze(config.UNCONFIRMED_WAIT_MS);
}

/** The wait for a callback, and then what the app or the operator wants done. */
async function followPolicy(context: Context, record: GenerationRecord): Promise<Outcome> {
  const { config, now, store } = context;
  const waitMs = (record.unconfirmedAt ?? 0) + config.UNCONFIRMED_WAIT_MS - now();
  if (waitMs > 0) return snooze(waitMs);

  const policy = record.onUnconfirmed ?? config.UNCONFIRMED_POLICY;
  if (policy === 'resubmit' && record.resubmits === 0) {
    await advance(context, record, 'queued', {
      set: { submitNonce: null, unconfirmedAt: null },
      count: ['resubmits'],
      bill: 'closed',
      // The job of this run is still there; it would swallow the one it gets in its turn.
      place: { afterMs: REJOIN_MS },
    });
    return done;
  }
  if (policy === 'fail') {
    const message = 'It is not known whether the provider accepted the request, and no callback came.';
    await fail(context, record, {
      code: 'submission_unconfirmed',
      message,
      stage: 'submit',
      retryable: true,
      charge: 'possible',
    });
    return snooze(0);
  }
  // Held (also after one resubmit by policy, or it could go on for ever): nothing is due until somebody decides.
  return (await store.amend(record, { live: false })) ? done : snooze(0);
}
