/**
 * Tasks that a callback or an operator named. Each is asked for, free of charge: it counts and is charged once the provider
 * showed it. A task that the provider does not know, or that shows another request, does not belong to this generation.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Context } from './context.js';
import { askForTask } from './gated-poll.js';
import type { GenerationRecord } from '../src/generation/record.js';
import { hintedTasks, withBill, withoutTask, withShown, type Submit } from '../src/generation/submits.js';
import { unshownTasks } from '../src/generation/unshown.js';
import { withdrawTask } from '../src/pipeline/withdraw-task.js';
import type { Followed } from '../src/polling/poll-state.js';
import { ageOf } from '../src/polling/read-answer.js';
import type { PollOutcome } from '../src/provider/outcomes.js';
import { snooze, type Outcome } from '../src/queue/runner.js';

/** Fields of a change that mark the followed task as shown by the provider; none unless it was only named before. */
export function shownIn({ submits, taskId }: Pick<Followed, 'submits' | 'taskId'>): {
  readonly submits?: Submit[];
} {
  const isHint = hintedTasks(submits).some((submit) => submit.taskId === taskId);
  return isHint ? { submits: withShown(submits, taskId ?? '') } : {};
}

/** It is more than not visible yet: no such task lives at the provider. */
export function isUnknown(
  { config, now }: Context,
  followed: Followed,
  { kind }: Pick<PollOutcome, 'kind'>,
): boolean {
  const isLate = ageOf(followed, now()) >= config.NOT_VISIBLE_GRACE_MS;
  return kind === 'notVisible' && followed.visibleAt === null && isLate;
}

/** Gateways trim and cut what they show. */
function isAnother({ request }: GenerationRecord, outcome: PollOutcome): boolean {
  const shown = 'prompt' in outcome ? outcome.prompt?.trim() : undefined;
  if (!shown) return false;
  const asked = request.prompt.trim();
  return !asked.startsWith(shown) && !shown.startsWith(asked);
}

/** The task that is followed was named, and turns out to be none of this generation: it is withdrawn. */
export async function isNotItsOwn(
  context: Context,
  followed: Followed,
  outcome: PollOutcome,
): Promise<boolean> {
  const isAwaited = followed.state === 'generating' || followed.state === 'expired';
  if (!isAwaited || followed.visibleAt !== null) return false;
  const unknown = isUnknown(context, followed, outcome);
  if (!unknown && !('prompt' in outcome)) return false;
  const record = await context.store.get(followed.id);
  if (record?.rev !== followed.rev || !('submits' in shownIn(record))) return false;
  if (!unknown && !isAnother(record, outcome)) return false;
  const reason = unknown
    ? `The provider does not know the task ${record.taskId} that was named for it.`
    : `The task ${record.taskId} that was named for it is that of another request.`;
  return withdrawTask(context, record, { reason, answer: outcome.answer });
}

/** What the answer about a further task makes of the list. */
function withWord(
  { config, now }: Context,
  record: GenerationRecord,
  submits: readonly Submit[],
  { hint, outcome }: { readonly hint: Submit; readonly outcome: PollOutcome },
): Submit[] {
  const taskId = hint.taskId ?? '';
  switch (outcome.kind) {
    case 'unavailable':
    case 'misconfigured':
      return [...submits];
    case 'notVisible':
      return now() - (hint.hint ?? 0) < config.NOT_VISIBLE_GRACE_MS
        ? [...submits]
        : withoutTask(submits, taskId);
    case 'pending':
    case 'succeeded':
    case 'succeededWithoutUrl':
      return isAnother(record, outcome) ? withoutTask(submits, taskId) : withShown(submits, taskId);
    case 'failed': {
      if (isAnother(record, outcome)) return withoutTask(submits, taskId);
      const { point, refund } = outcome.billing;
      const refunded = refund !== null && refund > 0 ? 'refunded' : 'possible';
      return withBill(submits, taskId, point === 0 ? 'none' : refunded);
    }
  }
}

/** Asks for those beside the task that is followed. Returns when to ask again; null: all were shown, or forgotten. */
export async function confirmTasks(
  context: Context,
  { id }: Followed,
  signal: AbortSignal,
): Promise<Outcome | null> {
  const { store, config } = context;
  const record = await store.get(id);
  if (!record) return null;
  let submits: Submit[] = [...record.submits];
  let waitMs = config.POLL_MAX_INTERVAL_MS;
  for (const hint of unshownTasks(record)) {
    const asked = await askForTask(context, { id, taskId: hint.taskId ?? null }, signal);
    if (asked.kind === 'wait') {
      // What was learned of those before counts: under a low call rate each run asks for one.
      waitMs = asked.waitMs;
      break;
    }
    submits = withWord(context, record, submits, { hint, outcome: asked.outcome });
  }
  const kept = new Set(submits.map(({ taskId }) => taskId));
  const forget = record.submits.flatMap(({ taskId }) => (taskId && !kept.has(taskId) ? [taskId] : []));
  const isNews = !isDeepStrictEqual(submits, record.submits);
  if (isNews && !(await store.amend(record, { submits, forget }))) return snooze(0);
  return unshownTasks({ ...record, submits }).length === 0 ? null : snooze(waitMs);
}
