/**
 * A task of the simulated provider. What it is doing follows from the clock alone, so that it needs no timers and two
 * runs agree.
 */
import type { AssetName } from './media.js';
import { mediaFor, type Media } from './media.js';
import type { Script } from './script-fields.js';

export type Phase = 'queued' | 'running' | 'succeeded' | 'failed';

export interface Task {
  readonly taskId: string;
  /** The submit that created it, by its number in the ledger. */
  readonly submitSeq: number;
  /** What counts as one generation: the id in the callback URL, else the prompt. */
  readonly generationKey: string;
  readonly generationId: string | null;
  readonly prompt: string;
  readonly callbackUrl: string;
  readonly script: Script;
  /** Where the client reached us, `http://host:port`: the origin that its asset links get. */
  readonly origin: string;
  readonly createdAt: number;
  /** Until then the feed says `task_not_exist`; Infinity for ever. */
  readonly visibleAt: number;
  /** Until then queued, after it running. */
  readonly startsAt: number;
  /** From then on at 99 %. Without `stuck` the same instant as `finishesAt`. */
  readonly stuckAt: number;
  /** Infinity when it never ends. */
  readonly finishesAt: number;

  /** Feed requests so far. */
  polls: number;
  /** Of those, the ones that came when it was visible: the place in the poll steps. */
  visiblePolls: number;
  /** Of those, the ones that found it succeeded. */
  succeededPolls: number;
  /** The number in the links that the feed hands out now. */
  link: number;
  /** Links up to this number are dead. */
  deadLink: number;
  /** What a dead link answers. */
  deadLinkStatus: number;
  /** Asset requests so far, by asset: the place in the steps. */
  readonly assetRequests: Record<AssetName, number>;
}

/** Share of the duration that a task waits in the queue. */
const QUEUED_SHARE = 0.2;

export function createTask(
  fields: Pick<
    Task,
    | 'taskId'
    | 'submitSeq'
    | 'generationKey'
    | 'generationId'
    | 'prompt'
    | 'callbackUrl'
    | 'script'
    | 'origin'
    | 'createdAt'
  >,
  durationMs: number,
): Task {
  const { createdAt, script } = fields;
  return {
    ...fields,
    visibleAt: createdAt + script.visibleAfterMs,
    startsAt: createdAt + durationMs * QUEUED_SHARE,
    stuckAt: createdAt + durationMs,
    finishesAt: createdAt + durationMs + script.stuckMs,
    polls: 0,
    visiblePolls: 0,
    succeededPolls: 0,
    link: 1,
    deadLink: 0,
    deadLinkStatus: 403,
    assetRequests: { video: 0, poster: 0, lastFrame: 0 },
  };
}

export function phaseOf(task: Task, nowMs: number): Phase {
  if (nowMs >= task.finishesAt) return task.script.result.succeeds ? 'succeeded' : 'failed';
  return nowMs >= task.startsAt ? 'running' : 'queued';
}

/** 0 to 100; never 100 before the end. */
export function progressOf(task: Task, nowMs: number): number {
  switch (phaseOf(task, nowMs)) {
    case 'succeeded':
    case 'failed':
      return 100;
    case 'queued':
      return 0;
    case 'running':
      if (nowMs >= task.stuckAt) return 99;
      return Math.min(98, Math.floor((100 * (nowMs - task.createdAt)) / (task.stuckAt - task.createdAt)));
  }
}

/** The file as it should arrive. */
export function mediaOfTask(task: Task, asset: AssetName): Media {
  return mediaFor(asset, {
    taskId: task.taskId,
    videoSizeBytes: task.script.sizeBytes,
    posterFormat: task.script.posterFormat,
  });
}
