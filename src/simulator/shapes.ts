/**
 * How the provider writes a task down: the three documented body shapes and the callback's. W wraps the task and nests
 * the upstream's own view of it, B is the bare task, O is the old form with numbers as text; a callback (C) is O's
 * inner object alone.
 */
import type { AssetName } from './media.js';
import type { Script, Shape } from './script-fields.js';
import { phaseOf, progressOf, type Phase, type Task } from './task.js';

type Fields = Record<string, unknown>;

/** The links a finished task shows; null for a file that is missing. The video's is null while it is withheld. */
export type AssetUrls = Readonly<Record<AssetName, string | null>>;

const WORDS: Readonly<Record<'gateway' | 'upstream' | 'old', Readonly<Record<Phase, string>>>> = {
  gateway: { queued: 'QUEUED', running: 'IN_PROGRESS', succeeded: 'SUCCESS', failed: 'FAILURE' },
  upstream: { queued: 'PENDING', running: 'RUNNING', succeeded: 'SUCCEEDED', failed: 'FAILED' },
  old: { queued: '0', running: '1', succeeded: '3', failed: '2' },
};

/** Units that one task costs, as the provider's `point` says it. */
const POINTS = '320';

function wordOf(script: Script, vocabulary: keyof typeof WORDS, phase: Phase): string | null {
  const own = {
    queued: script.queuedWord,
    running: script.runningWord,
    succeeded: script.succeededWord,
    failed: script.failedWord,
  }[phase];
  const word = own ?? WORDS[vocabulary][phase];
  return word === 'none' ? null : word;
}

/** An instant as this provider might write it. */
function instant(form: NonNullable<Script['times']>, atMs: number | null): unknown {
  if (form === 'zero' || atMs === null) return form === 'string' ? '0' : 0;
  if (form === 'ms') return Math.round(atMs);
  if (form === 'string') return String(Math.floor(atMs / 1000));
  if (form === 'iso') return new Date(atMs).toISOString();
  return Math.floor(atMs / 1000);
}

/** Sets `a.b.c` in nested objects, making those that are missing. */
function place(fields: Fields, path: string, value: unknown): void {
  const [first = '', ...rest] = path.split('.');
  if (rest.length === 0) {
    fields[first] = value;
    return;
  }
  const inner = fields[first];
  const next: Fields = typeof inner === 'object' && inner !== null ? (inner as Fields) : {};
  fields[first] = next;
  place(next, rest.join('.'), value);
}

/** A task id as the JSON value the script asks for. */
export function idValue(task: Task): string | number {
  return task.script.id === 'number' ? Number(task.taskId) : task.taskId;
}

function failureText(task: Task): string {
  const code = task.script.result.failureCode;
  return code === null ? 'The generation failed.' : `The generation failed (${code}).`;
}

/** Which phase the outer task claims, where it disagrees with the upstream's. */
function outerPhase(task: Task, phase: Phase): Phase {
  const ended = phase === 'succeeded' || phase === 'failed';
  if (!ended || task.script.outer === 'agree') return phase;
  return task.script.outer === 'pending' ? 'running' : 'failed';
}

const USUAL_URL_PLACE: Readonly<Record<Shape, NonNullable<Script['urlIn']>>> = {
  W: 'data.output',
  B: 'result_url',
  O: 'video_url',
  C: 'video_url',
};

function placeVideo(fields: Fields, shape: Shape, task: Task, url: string): void {
  const disagrees = task.script.outer !== 'agree';
  const where = task.script.urlIn ?? (disagrees ? 'data.output' : USUAL_URL_PLACE[shape]);
  const list = where.endsWith('output') || task.script.urlForm === 'list';
  place(fields, where, list ? [url] : url);
}

function placeFailure(fields: Fields, shape: Shape, task: Task): void {
  const old = shape === 'O' || shape === 'C';
  const where = task.script.errorIn ?? (old ? 'msg' : 'fail_reason');
  if (where !== 'none') place(fields, where, failureText(task));
  const code = task.script.result.failureCode;
  if (code !== null) place(fields, old ? 'failureCode' : 'data.failureCode', code);
}

function gatewayTask(task: Task, phase: Phase, nowMs: number, withUpstream: boolean): Fields {
  const { script } = task;
  const outer = outerPhase(task, phase);
  const times = script.times ?? 's';
  const percent = progressOf(task, nowMs);
  const status = wordOf(script, 'gateway', outer);
  return {
    task_id: idValue(task),
    action: 'IMAGE_TO_VIDEO',
    ...(status === null ? {} : { status }),
    fail_reason: outer !== phase && outer === 'failed' ? 'task timed out at the gateway' : '',
    submit_time: instant(times, task.createdAt),
    start_time: instant(times, nowMs >= task.startsAt ? task.startsAt : null),
    finish_time: instant(times, outer === 'succeeded' || outer === 'failed' ? task.finishesAt : null),
    ...(script.progress === 'none'
      ? {}
      : { progress: script.progress === 'number' ? percent : `${percent}%` }),
    ...(withUpstream
      ? {
          data: {
            id: `up-${task.taskId}`,
            status: WORDS.upstream[phase],
            createdAt: new Date(task.createdAt).toISOString(),
          },
        }
      : {}),
  };
}

function oldTask(task: Task, phase: Phase, nowMs: number): Fields {
  const { script } = task;
  const outer = outerPhase(task, phase);
  const times = script.times ?? 'string';
  const status = wordOf(script, 'old', outer);
  const ended = outer === 'succeeded' || outer === 'failed';
  return {
    task_id: idValue(task),
    ...(status === null ? {} : { status }),
    prompt: task.prompt,
    prompt_en: task.prompt,
    video_url: '',
    poster: '',
    last_frame: '',
    msg: null,
    point: POINTS,
    refund: outer === 'failed' ? POINTS : '0',
    create_time: instant(times, task.createdAt),
    update_time: instant(times, ended ? task.finishesAt : nowMs),
    ...(outer === phase ? {} : { data: { id: `up-${task.taskId}`, status: WORDS.upstream[phase] } }),
  };
}

/** The task itself in this shape, without any envelope. `phase` is an argument because callbacks can be stale. */
export function taskView(task: Task, shape: Shape, phase: Phase, nowMs: number, urls: AssetUrls): Fields {
  const fields =
    shape === 'O' || shape === 'C'
      ? oldTask(task, phase, nowMs)
      : gatewayTask(task, phase, nowMs, shape === 'W' || task.script.outer !== 'agree');
  if (phase === 'failed') placeFailure(fields, shape, task);
  if (phase === 'succeeded') {
    if (urls.video !== null) placeVideo(fields, shape, task, urls.video);
    if (urls.poster !== null) fields.poster = task.script.urlForm === 'list' ? [urls.poster] : urls.poster;
    if (urls.lastFrame !== null) {
      fields.last_frame = task.script.urlForm === 'list' ? [urls.lastFrame] : urls.lastFrame;
    }
  }
  return fields;
}

/** The whole body of a feed answer. */
export function feedBody(task: Task, nowMs: number, urls: AssetUrls): Fields {
  const { script } = task;
  const view = taskView(task, script.shape, phaseOf(task, nowMs), nowMs, urls);
  switch (script.shape) {
    case 'W':
      return { code: script.code ?? 'success', [script.messageField ?? 'message']: '', data: view };
    case 'O':
      return {
        code: script.code ?? 200,
        [script.messageField ?? 'msg']: 'success',
        data: view,
        exec_time: 0.042,
      };
    case 'B':
    case 'C':
      return view;
  }
}

/** The body of a callback: always O's inner object, bare, whatever the feed speaks. */
export function callbackBody(task: Task, phase: Phase, nowMs: number, urls: AssetUrls): Fields {
  return taskView(task, 'C', phase, nowMs, urls);
}
