/** Lets a policy follow tasks, in the order of time, so that what it learns from one it knows for the next. */
import { bucketOf } from '../../../src/polling/histogram.js';
import type { SimulatedTask } from './distributions.js';
import type { Policy, Watch } from './policies.js';

export interface Run {
  readonly pollsPerTask: number;
  /** Of each task, from its end to the poll that found it, in seconds. */
  readonly delays: readonly number[];
}

/** How many running tasks are in which bucket of age, as the sweep counts them. */
export type RunningAt = (atMs: number) => ReadonlyMap<number, number>;

const SWEEP_EVERY_MS = 60_000;

interface Event {
  readonly atMs: number;
  readonly task: SimulatedTask;
  readonly watch: Watch | null;
}

/** A binary heap by time. */
function createAgenda() {
  const heap: Event[] = [];
  const before = (a: number, b: number) => heap[a]!.atMs < heap[b]!.atMs;
  const swap = (a: number, b: number) => {
    [heap[a], heap[b]] = [heap[b]!, heap[a]!];
  };
  return {
    add(event: Event) {
      let i = heap.push(event) - 1;
      for (let parent = (i - 1) >> 1; i > 0 && before(i, parent); parent = (i - 1) >> 1) {
        swap(i, parent);
        i = parent;
      }
    },
    next(): Event | undefined {
      const first = heap[0];
      const last = heap.pop();
      if (heap.length === 0 || last === undefined) return first;
      heap[0] = last;
      for (let i = 0; ;) {
        let least = i;
        for (const child of [2 * i + 1, 2 * i + 2]) {
          if (child < heap.length && before(child, least)) least = child;
        }
        if (least === i) return first;
        swap(i, least);
        i = least;
      }
    },
  };
}

export const endOf = ({ submittedAtS, queuedS, runS }: SimulatedTask): number =>
  (submittedAtS + queuedS + runS) * 1000;

export function simulate(
  tasks: readonly SimulatedTask[],
  createPolicy: (runningAt: RunningAt) => Policy,
): Run {
  const running = new Set<SimulatedTask>();
  let counted = { atMs: -Infinity, ages: new Map<number, number>() };
  const policy = createPolicy((atMs) => {
    if (atMs - counted.atMs < SWEEP_EVERY_MS) return counted.ages;
    counted = { atMs, ages: new Map() };
    for (const { submittedAtS } of running) {
      const bucket = bucketOf(atMs - submittedAtS * 1000);
      counted.ages.set(bucket, (counted.ages.get(bucket) ?? 0) + 1);
    }
    return counted.ages;
  });

  const agenda = createAgenda();
  for (const task of tasks) agenda.add({ atMs: task.submittedAtS * 1000, task, watch: null });
  const delays: number[] = [];
  let polls = 0;
  for (let event = agenda.next(); event; event = agenda.next()) {
    const { atMs, task } = event;
    const watch = event.watch ?? policy.watch(task);
    if (event.watch === null) running.add(task);
    else polls += 1;
    if (event.watch !== null && atMs >= endOf(task)) {
      delays.push((atMs - endOf(task)) / 1000);
      running.delete(task);
      watch.over(atMs);
    } else {
      agenda.add({ atMs: atMs + watch.next(atMs), task, watch });
    }
  }
  return { pollsPerTask: polls / tasks.length, delays };
}
