/**
 * Tasks that a callback or an operator named, that no poll follows, and that the provider has not shown: the poll stage asks
 * for each, also after the generation has ended. Derived with every change of a record, so that no way of a generation
 * forgets one.
 */
import type { Change } from './change.js';
import type { FieldPatch, GenerationRecord } from './record.js';
import { followedTask, stageOf, type State } from './states.js';
import { hintedTasks, type Submit } from './submits.js';

type Standing = Pick<GenerationRecord, 'state' | 'taskId' | 'submits'>;

export function unshownTasks({ state, taskId, submits }: Standing): Submit[] {
  const followed = followedTask(state, taskId);
  return hintedTasks(submits).filter((submit) => submit.taskId !== followed);
}

/** The generation needs a job for something other than named tasks. */
const hasWork = ({ state, taskId }: Standing): boolean =>
  stageOf(state) !== null || followedTask(state, taskId) !== null;

/**
 * What a change of `record` to `to` does about them: the field `unshown`, by which a poll knows that there are some, and
 * whether the generation needs a job. While such tasks exist it needs one, even if the change sets `live` to false.
 */
export function unshownAfter(
  record: Standing,
  to: State,
  change: Change,
): { readonly set: FieldPatch; readonly live?: boolean } {
  const taskId = change.set?.['taskId'];
  const after = {
    state: to,
    taskId: taskId === undefined ? record.taskId : (taskId as string | null),
    submits: change.submits ?? record.submits,
  };
  const [before, now] = [record, after].map((standing) => unshownTasks(standing).length > 0);
  if (now) return { set: { unshown: 1 }, live: true };
  const set = before ? { unshown: null } : {};
  if (before && change.live === undefined && !hasWork(after)) return { set, live: false };
  return change.live === undefined ? { set } : { set, live: change.live };
}
