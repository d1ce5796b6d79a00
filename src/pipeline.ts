/**
 * The hand-overs of the flow: which stage follows, and what a task id means to the generation it belongs to.
 * Each is the transition first, then the next job; a crash between the two is healed by the stage's next run and by
 * the sweep, since the record says which job is due.
 */
import type { Hub } from './hub.js';
import type { Charge, FailureCode, GenerationRecord } from './generation/record.js';
import { isTerminal, stageOf, type Stage, type State } from './generation/states.js';
import { announced, type Change } from './generation/store.js';
import type { RawAnswer } from './provider/outcomes.js';

/** How often a change is decided anew when others change the same generation at the same moment. */
const MAX_TRIES = 50;

/**
 * Moves a generation on and adds the job of the stage that follows, in `delayMs`.
 * @returns false when the generation is no longer where this was decided: read again.
 */
export async function advance(
  hub: Hub,
  record: GenerationRecord,
  to: State,
  change: Change = {},
  { delayMs = 0 } = {},
): Promise<boolean> {
  const stage = stageOf(to);
  const finishedAt = isTerminal(to) ? hub.now() : null;
  const whole = {
    live: stage !== null,
    ...change,
    set: { finishedAt, ...(to === 'failed' ? {} : { failure: null }), ...change.set },
  };
  const moved = await hub.store.transition(record, to, whole);
  if (!moved) return false;
  const { id: generationId, state: from } = record;
  hub.log.info(
    { generationId, from, to, taskId: change.set?.['taskId'] ?? record.taskId },
    'generation moved',
  );
  if (to === 'generating') hub.checkpoint('saved', generationId);
  if (stage && stage !== stageOf(from)) {
    await hub.queues.remind(stage, {
      generationId,
      delayMs,
      ...(stage === 'submit' ? { priority: record.priority } : {}),
    });
  }
  if (to === 'generating') hub.checkpoint('handed-over', generationId);
  if (announced(record, to, whole) !== null) await hastenNotification(hub, generationId);
  return true;
}

/** What is owed to the app is in the outbox already: without this job the sweep would send it a little later. */
export async function hastenNotification(hub: Hub, generationId: string): Promise<void> {
  try {
    await hub.queues.hasten('notify', generationId);
  } catch (error) {
    hub.log.warn({ generationId, err: error }, 'a notification waits for the next sweep');
  }
}

/** Ends a generation as failed. `charge` is what is known of the bill by then. */
export function fail(
  hub: Hub,
  record: GenerationRecord,
  failure: { code: FailureCode; message: string; stage: Stage; retryable: boolean; charge: Charge },
  change: Change = {},
): Promise<boolean> {
  const { code, message, stage, retryable, charge } = failure;
  hub.log.warn({ generationId: record.id, code, stage, charge }, 'generation failed');
  const text = JSON.stringify({ code, message: message.slice(0, 1000), stage, retryable, charge });
  return advance(hub, record, 'failed', { ...change, set: { ...change.set, failure: text, charge } });
}

/** Adds a warning to those the generation has; for the `set` of a change. */
export function withWarning(record: GenerationRecord, code: string, message: string): { warnings: string } {
  return { warnings: JSON.stringify([...record.warnings, { code, message }]) };
}

/** Decides a change anew from the record as it is, until it fits. `decide` returns null when nothing is left to do. */
export async function settle<T>(
  hub: Hub,
  generationId: string,
  decide: (record: GenerationRecord) => Promise<{ readonly settled: T } | 'again'>,
  missing: T,
): Promise<T> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const record = await hub.store.get(generationId);
    if (!record) return missing;
    const decision = await decide(record);
    if (decision !== 'again') return decision.settled;
  }
  throw new Error(`generation ${generationId} kept changing; nothing was decided`);
}

/** Who brought a task id: the answer to our submit, a callback of the provider, or an operator. */
export type TaskSource = 'submit' | 'callback' | 'operator';

export type Adoption =
  /** It is the generation's task now, and is followed. */
  | 'adopted'
  /** It was known already. */
  | 'known'
  /** The submit is still under way: kept, and used if its answer is lost. */
  | 'remembered'
  /** The generation has another task: kept beside it, an alarm was raised. */
  | 'second'
  /** The generation is over (canceled): noted for the bill. */
  | 'noted'
  | 'missing';

/** May this generation still take its first task id? Also after it was given up: the task exists and is paid for. */
function awaitsTask({ state, taskId, attempts, failure }: GenerationRecord): boolean {
  if (taskId !== null || attempts.submit === 0) return false;
  return (
    state === 'queued' ||
    state === 'submitting' ||
    state === 'unconfirmed' ||
    (state === 'failed' && failure?.stage === 'submit')
  );
}

/**
 * Gives a task id to its generation. A task that exists is followed rather than bought again, whatever was thought
 * of its submit before; a second one is never dropped, since it is a bill of its own.
 */
export function adoptTask(
  hub: Hub,
  generationId: string,
  taskId: string,
  {
    source,
    answer = null,
    warning = null,
  }: { source: TaskSource; answer?: RawAnswer | null; warning?: string | null },
): Promise<Adoption> {
  return settle<Adoption>(
    hub,
    generationId,
    async (record) => {
      const { state, otherTaskIds, hintedTaskId } = record;
      if (record.taskId === taskId || otherTaskIds.includes(taskId)) return { settled: 'known' };

      if (source === 'callback' && state === 'submitting' && hintedTaskId === null) {
        const set = { hintedTaskId: taskId };
        return (await hub.store.amend(record, { set, answer, expect: { hintedTaskId: '' } }))
          ? { settled: 'remembered' }
          : 'again';
      }
      if (source === 'callback' && state === 'submitting' && hintedTaskId === taskId)
        return { settled: 'known' };

      if (awaitsTask(record) && !(source === 'callback' && state === 'submitting')) {
        const now = hub.now();
        // A callback may have hinted at another task meanwhile: then there are two.
        const others =
          hintedTaskId !== null && hintedTaskId !== taskId ? [...otherTaskIds, hintedTaskId] : otherTaskIds;
        const double = others.length > otherTaskIds.length;
        const adopted = await advance(
          hub,
          record,
          'generating',
          {
            set: {
              taskId,
              acceptedAt: now,
              deadlineAt: record.deadlineAt ?? now + hub.config.GENERATION_DEADLINE_MS,
              charge: 'charged',
              hintedTaskId: null,
              unconfirmedAt: null,
              ...(double ? { otherTaskIds: JSON.stringify(others) } : {}),
              ...(warning === null ? {} : withWarning(record, 'accepted_with_error', warning)),
            },
            expect: { hintedTaskId: hintedTaskId ?? '' },
            answer,
            ...(double ? { event: secondTask(hintedTaskId ?? '') } : {}),
          },
          { delayMs: source === 'submit' ? hub.config.POLL_FIRST_DELAY_MS : 0 },
        );
        if (adopted && double) alarmSecondTask(hub, generationId, hintedTaskId ?? '');
        return adopted ? { settled: 'adopted' } : 'again';
      }

      if (record.taskId === null && isTerminal(state)) {
        const noted = await hub.store.amend(record, {
          set: { taskId, charge: 'charged' },
          answer,
          expect: { taskId: '' },
        });
        return noted ? { settled: 'noted' } : 'again';
      }

      const kept = await hub.store.amend(record, {
        set: { otherTaskIds: JSON.stringify([...otherTaskIds, taskId]) },
        expect: { otherTaskIds: otherTaskIds.length > 0 ? JSON.stringify(otherTaskIds) : '' },
        answer,
        event: secondTask(taskId),
      });
      if (kept) alarmSecondTask(hub, generationId, taskId);
      return kept ? { settled: 'second' } : 'again';
    },
    'missing',
  );
}

const secondTask = (taskId: string) => ({ type: 'second_task', text: taskId });

function alarmSecondTask(hub: Hub, generationId: string, taskId: string): void {
  hub.log.error(
    { generationId, taskId, alarm: 'second_task' },
    'a second task exists for one generation: it may be billed twice',
  );
}
