/** What a benchmark asks its simulator, and what it is told. */

export type Question = 'totals' | 'tasks' | 'reset';

/** A task as the provider saw it. Instants are epoch milliseconds. */
export interface TaskCourse {
  readonly prompt: string;
  readonly createdAt: number;
  readonly finishesAt: number | null;
  /** When a poll was first answered with the end. */
  readonly endSeenAt: number | null;
  readonly polls: number;
}

export type Reply =
  | { readonly kind: 'listening'; readonly url: string }
  | { readonly kind: 'totals'; readonly polls: number; readonly tasks: number; readonly over: number }
  | { readonly kind: 'tasks'; readonly tasks: readonly TaskCourse[] }
  | { readonly kind: 'done' };

/** Was its end seen by its client? */
export const isOver = ({ endSeenAt }: Pick<TaskCourse, 'endSeenAt'>): boolean => endSeenAt !== null;

/** From the end of each task to the poll that saw it, in ms; those whose end nobody saw are left out. */
export function detectionDelays(tasks: readonly TaskCourse[]): number[] {
  return tasks.flatMap(({ endSeenAt, finishesAt }) =>
    endSeenAt === null || finishesAt === null ? [] : [endSeenAt - finishesAt],
  );
}
