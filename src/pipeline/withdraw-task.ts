/** Takes back a task that a callback or an operator named wrongly. */
import type { GenerationRecord, RawAnswer } from '../generation/record.js';
import { withoutTask } from '../generation/submits.js';
import { adoptTask } from './adopt-task.js';
import { advance, fail } from './advance.js';
import type { Hub } from './context.js';

/**
 * The task that is followed was named by a callback or an operator, and is none of this generation: it is as if it had not been
 * named. Another one that is known takes its place.
 * @returns false when the generation moved meanwhile.
 */
export async function withdrawTask(
  hub: Hub,
  record: GenerationRecord,
  { reason, answer = null }: { readonly reason: string; readonly answer?: RawAnswer | null },
): Promise<boolean> {
  const { id, state, taskId } = record;
  const submits = withoutTask(record.submits, taskId ?? '');
  const set = { taskId: null, acceptedAt: null };
  const change = { submits, answer, forget: [taskId ?? ''] };
  // Only one that is still expected to end waits for another task.
  const isDoubtful =
    state === 'generating' &&
    submits.some((submit) => submit.bill === 'possible' && submit.taskId === undefined);
  const moved = isDoubtful
    ? await advance(hub, record, 'unconfirmed', {
        ...change,
        set: { ...set, unconfirmedAt: hub.now() },
        event: { type: 'unconfirmed', text: reason },
      })
    : await fail(
        hub,
        record,
        { code: 'submission_unconfirmed', message: reason, stage: 'submit', retryable: true },
        { ...change, set },
      );
  if (!moved) return false;
  hub.log.error(
    { generationId: id, taskId, alarm: 'unconfirmed', reason },
    'a task that was named was not its own',
  );
  const other = submits.findLast(({ hint, liveUntil }) => hint !== undefined || liveUntil !== undefined);
  if (other?.taskId) await adoptTask(hub, id, other.taskId, { source: 'operator' });
  return true;
}
