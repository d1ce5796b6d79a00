/** What a script of the simulator can say, and what the well-behaved provider does. */

/** What to do with one request, or with several in a row. */
export interface Step {
  readonly word: string;
  readonly argument: string | null;
  /** How many requests it covers; Infinity for `*forever`. */
  readonly times: number;
}
export type Steps = readonly Step[];

/** The step for the `index`-th request (from 0); `ok` once the steps are used up. */
export function stepAt(steps: Steps, index: number): Step {
  let left = index;
  for (const step of steps) {
    if (left < step.times) return step;
    left -= step.times;
  }
  return OK;
}

const OK: Step = { word: 'ok', argument: null, times: Infinity };

export const SHAPES = ['W', 'B', 'O', 'C'] as const;
export type Shape = (typeof SHAPES)[number];

export const SUBMIT_SHAPES = ['task-id', 'data-id', 'task', 'string', 'top-task-id', 'top-id'] as const;
export const URL_PLACES = [
  'video_url',
  'raw_video_url',
  'result_url',
  'output',
  'data.output',
  'data.video_url',
  'data.video.url',
  'url',
  'fail_reason',
] as const;
export const ERROR_PLACES = [
  'fail_reason',
  'msg',
  'failure',
  'data.failure',
  'result_url',
  'message',
  'none',
] as const;
export const CALLBACK_MODES = [
  'once',
  'lost',
  'double',
  'every',
  'out-of-order',
  'wrong-token',
  'early',
  'garbage',
] as const;
export type CallbackMode = (typeof CALLBACK_MODES)[number];

/** Everything a script can say. `DEFAULT_SCRIPT` is the well-behaved provider. */
export interface Script {
  readonly submit: Steps;
  /** The models that the submit steps are for; null for all. */
  readonly submitModels: readonly string[] | null;
  readonly submitDelayMs: number;
  readonly submitShape: (typeof SUBMIT_SHAPES)[number];
  readonly id: 'string' | 'number';
  /** The success code in bodies; null for the usual one of the shape. */
  readonly code: number | string | null;
  /** Field of the envelope's message; null for the usual one of the shape. */
  readonly messageField: 'msg' | 'message' | null;
  readonly retryAfter: { readonly form: 'seconds' | 'date'; readonly delayMs: number } | null;

  /** Infinity for `never`. */
  readonly visibleAfterMs: number;
  readonly notVisibleStatus: number;
  /** Time from acceptance to the end; null for what the simulator was started with. */
  readonly durationMs: number | null;
  /** Extra time at 99 %; Infinity for `forever`. */
  readonly stuckMs: number;
  readonly shape: Shape;
  readonly poll: Steps;
  readonly result: { readonly succeeds: boolean; readonly failureCode: string | null };
  readonly outer: 'agree' | 'pending' | 'failed';
  /** Polls that say success without a URL first; Infinity for `forever`. */
  readonly withoutUrlPolls: number;
  readonly urlIn: (typeof URL_PLACES)[number] | null;
  readonly urlForm: 'text' | 'list';
  readonly errorIn: (typeof ERROR_PLACES)[number] | null;
  /** Words that replace the provider's own; null for the usual one, "none" leaves the status out. */
  readonly queuedWord: string | null;
  readonly runningWord: string | null;
  readonly succeededWord: string | null;
  readonly failedWord: string | null;
  readonly progress: 'percent' | 'number' | 'none';
  readonly times: 's' | 'ms' | 'string' | 'iso' | 'zero' | null;

  readonly video: Steps;
  readonly poster: Steps;
  readonly lastFrame: Steps;
  /** Video size in bytes; null for the small fixture. */
  readonly sizeBytes: number | null;
  readonly posterFormat: 'jpeg' | 'png';
  readonly videoType: string | null;
  /** A `Content-Encoding` that was never applied to the bytes of the video. */
  readonly contentEncoding: string | null;
  /** How long after the end of the task its links answer `youngStatus`. */
  readonly youngMs: number;
  readonly youngStatus: number;
  /** `same`, `localhost`, `other-port`, `relative` or a host with an optional port. */
  readonly assetHost: string;
  readonly assetAuth: 'none' | 'key';
  readonly ranges: 'on' | 'off' | 'wrong' | 'whole-206';
  readonly etag: 'strong' | 'weak' | 'none' | 'changing';

  readonly callback: readonly CallbackMode[];
  readonly callbackDelayMs: number;
}

export const DEFAULT_SCRIPT: Script = {
  submit: [],
  submitModels: null,
  submitDelayMs: 0,
  submitShape: 'task-id',
  id: 'string',
  code: null,
  messageField: null,
  retryAfter: null,
  visibleAfterMs: 0,
  notVisibleStatus: 400,
  durationMs: null,
  stuckMs: 0,
  shape: 'W',
  poll: [],
  result: { succeeds: true, failureCode: null },
  outer: 'agree',
  withoutUrlPolls: 0,
  urlIn: null,
  urlForm: 'text',
  errorIn: null,
  queuedWord: null,
  runningWord: null,
  succeededWord: null,
  failedWord: null,
  progress: 'percent',
  times: null,
  video: [],
  poster: [],
  lastFrame: [],
  sizeBytes: null,
  posterFormat: 'jpeg',
  videoType: null,
  contentEncoding: null,
  youngMs: 0,
  youngStatus: 404,
  assetHost: 'same',
  assetAuth: 'none',
  ranges: 'on',
  etag: 'strong',
  callback: ['once'],
  callbackDelayMs: 0,
};

/** The part of a script that a text spelled out. */
export type ScriptPart = Partial<Script>;
