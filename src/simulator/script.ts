/**
 * The grammar in which a generation says how the simulator shall treat it: `[sim: submit=reset-after, duration=3s]`
 * inside its prompt, or the same text in the header `X-Simulator-Script`. `docs/simulator.md` lists every directive.
 *
 *     script    := directive { "," directive }
 *     directive := name "=" value
 *     steps     := step { ">" step }                  one step per request, then "ok"
 *     step      := word [ ":" argument ] [ "*" count | "*forever" ]
 *     duration  := number ( "ms" | "s" | "m" | "h" ) | "0"
 *
 * Nothing is ever ignored: whatever cannot be understood is a `ScriptError` that says what was expected.
 */
import { ReelhaulError } from '../errors.js';

/** A script that cannot be understood; the message says where and what was expected. */
export class ScriptError extends ReelhaulError {
  constructor(message: string) {
    super('invalid_script', message);
  }
}

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

/** A value that does not fit: says what would. The caller adds the directive and what was got. */
class Expected extends Error {}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a duration text; throws what was expected instead. */
function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (text === '0') return 0;
  if (!match) throw new Expected('a duration such as 250ms, 3s or 2m');
  return Number(match[1]) * (UNIT_MS[match[2] ?? ''] ?? 1);
}

function durationOr(word: string): (text: string) => number {
  return (text) => {
    if (text === word) return Infinity;
    try {
      return duration(text);
    } catch {
      throw new Expected(`a duration such as 250ms or 3s, or ${word}`);
    }
  };
}

function countOrForever(text: string): number {
  if (text === 'forever') return Infinity;
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new Expected('a count from 1, or forever');
  return Number(text);
}

function oneOf<const T extends string>(...words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((candidate) => candidate === text);
    if (word === undefined) throw new Expected(`one of ${words.join(', ')}`);
    return word;
  };
}

function httpStatus(text: string): number {
  if (!/^[2-5]\d\d$/.test(text)) throw new Expected('an HTTP status from 200 to 599');
  return Number(text);
}

/** `403` or `403:insufficient_user_quota`: the status of an answer and the code in it. */
export function statusAndCode(text: string): { readonly status: number; readonly code: string | null } {
  const [status = '', code = null] = text.split(':');
  return { status: httpStatus(status), code };
}

function size(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(B|KB|MB|GB)$/i.exec(text);
  if (!match) throw new Expected('a size such as 500KB, 50MB or 2GB');
  const powers = ['B', 'KB', 'MB', 'GB'].indexOf((match[2] ?? '').toUpperCase());
  return Math.round(Number(match[1]) * 1024 ** powers);
}

function anyText(text: string): string {
  if (text === '') throw new Expected('a text');
  return text;
}

function successCode(text: string): number | string {
  if (text === '200') return 200;
  if (text === '0') return 0;
  if (text === '"200"') return '200';
  if (text === 'success') return 'success';
  throw new Expected('200, "200", 0 or success');
}

function retryAfter(text: string): Script['retryAfter'] {
  if (text === 'none') return null;
  const [form, rest] = text.startsWith('date:')
    ? (['date', text.slice(5)] as const)
    : (['seconds', text] as const);
  try {
    return { form, delayMs: duration(rest) };
  } catch {
    throw new Expected('none, a duration such as 2s, or date: and a duration');
  }
}

function result(text: string): Script['result'] {
  if (text === 'success') return { succeeds: true, failureCode: null };
  if (text === 'failed') return { succeeds: false, failureCode: null };
  const code = /^failed:([A-Z0-9_.]+)$/i.exec(text)?.[1];
  if (code === undefined) throw new Expected('success, failed, or failed: and a failure code');
  return { succeeds: false, failureCode: code };
}

function callbackModes(text: string): readonly CallbackMode[] {
  return text.split('+').map((word) => oneOf(...CALLBACK_MODES)(word.trim()));
}

/** Milliseconds of `250ms`, `3s`, `2m`, `1h` or `0`, for flags outside a script. */
export function parseDuration(text: string): number {
  try {
    return duration(text);
  } catch (error) {
    throw new ScriptError(`expected ${(error as Error).message}, got ${JSON.stringify(text)}`);
  }
}

/** The argument of a checked step as milliseconds, or as a number; the fallback where it has none. */
export function durationArgument(step: Step, fallbackMs: number): number {
  return step.argument === null ? fallbackMs : duration(step.argument);
}
export function numberArgument(step: Step, fallback: number): number {
  return step.argument === null ? fallback : Number(step.argument);
}

/** What the argument of a step may be. */
type ArgumentRule = 'none' | 'duration' | 'status' | 'answer' | 'text';
/** The words of one kind of step; `status` in the list stands for 101 and any number from 300 to 599. */
type Vocabulary = Readonly<Record<string, ArgumentRule>>;

export const SUBMIT_STEPS: Vocabulary = {
  ok: 'none',
  double: 'none',
  'reset-before': 'none',
  'reset-after': 'none',
  'hang-before': 'none',
  'hang-after': 'none',
  'truncated-before': 'none',
  'truncated-after': 'none',
  'empty-before': 'status',
  'empty-after': 'status',
  'no-id-before': 'none',
  'no-id-after': 'none',
  'garbage-before': 'none',
  'garbage-after': 'none',
  'html-before': 'status',
  'html-after': 'status',
  'drip-after': 'duration',
  'endless-after': 'none',
  'with-id': 'status',
  redirect: 'none',
  quota: 'status',
  flat: 'answer',
  error: 'answer',
  rejected: 'text',
  'error-in-200': 'text',
  'rate-in-200': 'text',
  'invalid-request': 'none',
};
/** A bare status answers with an error and no task; `<status>-after` does so although a task was created. */
const SUBMIT_STATUS = /^(101|[345]\d\d)(-after)?$/;

export const POLL_STEPS: Vocabulary = {
  ok: 'none',
  html: 'status',
  garbage: 'none',
  empty: 'status',
  truncated: 'none',
  reset: 'none',
  hang: 'none',
  drip: 'duration',
  endless: 'none',
  redirect: 'none',
  business: 'text',
  quota: 'status',
  'not-visible': 'none',
};
const BARE_STATUS = /^(101|[345]\d\d)$/;

export const ASSET_STEPS: Vocabulary = {
  ok: 'none',
  missing: 'none',
  expired: 'status',
  truncated: 'none',
  drop: 'none',
  'truncated-chunked': 'none',
  'truncated-close': 'none',
  'cut-chunked': 'none',
  short: 'none',
  surplus: 'none',
  'no-length': 'none',
  empty: 'none',
  html: 'status',
  json: 'status',
  garbage: 'none',
  'no-moov': 'none',
  gzip: 'none',
  slow: 'duration',
  hang: 'none',
  stall: 'none',
  endless: 'none',
  reset: 'none',
  redirect: 'text',
};

function checkArgument(word: string, argument: string, rule: ArgumentRule): void {
  try {
    if (rule === 'duration') duration(argument);
    if (rule === 'status') httpStatus(argument);
    if (rule === 'answer') statusAndCode(argument);
    if (rule === 'text') anyText(argument);
  } catch (error) {
    throw new Expected(`${word}: followed by ${(error as Error).message}`, { cause: error });
  }
  if (rule === 'none') throw new Expected(`${word} without an argument`);
}

function stepsOf(vocabulary: Vocabulary, status: RegExp): (text: string) => Steps {
  return (text) =>
    text.split('>').map((part) => {
      const match = /^([^:*]+)(?::([^*]*))?(?:\*(.+))?$/.exec(part.trim());
      const word = match?.[1]?.trim() ?? '';
      const argument = match?.[2]?.trim() ?? null;
      const rule = Object.hasOwn(vocabulary, word) ? vocabulary[word] : undefined;
      if (rule === undefined && !status.test(word)) {
        throw new Expected(
          `steps joined by ">", each one of ${Object.keys(vocabulary).join(', ')} or a status like ${
            status === SUBMIT_STATUS ? '500 or 500-after' : '500'
          } (not ${JSON.stringify(part.trim())})`,
        );
      }
      if (argument !== null) checkArgument(word, argument, rule ?? 'none');
      return { word, argument, times: match?.[3] === undefined ? 1 : countOrForever(match[3].trim()) };
    });
}

interface Directive {
  readonly parse: (text: string) => ScriptPart;
}

function directive<K extends keyof Script>(field: K, parse: (text: string) => Script[K]): Directive {
  return { parse: (text) => ({ [field]: parse(text) }) };
}

/** Every directive, by the name a script gives it. */
export const DIRECTIVES = {
  submit: directive('submit', stepsOf(SUBMIT_STEPS, SUBMIT_STATUS)),
  'submit-models': directive('submitModels', (text) => anyText(text).split('+')),
  'submit-delay': directive('submitDelayMs', duration),
  'submit-shape': directive('submitShape', oneOf(...SUBMIT_SHAPES)),
  id: directive('id', oneOf('string', 'number')),
  code: directive('code', successCode),
  'message-field': directive('messageField', oneOf('msg', 'message')),
  'retry-after': directive('retryAfter', retryAfter),
  'visible-after': directive('visibleAfterMs', durationOr('never')),
  'not-visible-status': directive('notVisibleStatus', httpStatus),
  duration: directive('durationMs', duration),
  stuck: directive('stuckMs', durationOr('forever')),
  shape: directive('shape', oneOf(...SHAPES)),
  poll: directive('poll', stepsOf(POLL_STEPS, BARE_STATUS)),
  result: directive('result', result),
  outer: directive('outer', oneOf('agree', 'pending', 'failed')),
  'no-url': directive('withoutUrlPolls', countOrForever),
  'url-in': directive('urlIn', oneOf(...URL_PLACES)),
  'url-form': directive('urlForm', oneOf('text', 'list')),
  'error-in': directive('errorIn', oneOf(...ERROR_PLACES)),
  'queued-word': directive('queuedWord', anyText),
  'running-word': directive('runningWord', anyText),
  'succeeded-word': directive('succeededWord', anyText),
  'failed-word': directive('failedWord', anyText),
  progress: directive('progress', oneOf('percent', 'number', 'none')),
  times: directive('times', oneOf('s', 'ms', 'string', 'iso', 'zero')),
  video: directive('video', stepsOf(ASSET_STEPS, BARE_STATUS)),
  poster: directive('poster', stepsOf(ASSET_STEPS, BARE_STATUS)),
  'last-frame': directive('lastFrame', stepsOf(ASSET_STEPS, BARE_STATUS)),
  size: directive('sizeBytes', size),
  'poster-format': directive('posterFormat', oneOf('jpeg', 'png')),
  'video-type': directive('videoType', anyText),
  'content-encoding': directive('contentEncoding', anyText),
  young: directive('youngMs', duration),
  'young-status': directive('youngStatus', httpStatus),
  'asset-host': directive('assetHost', anyText),
  'asset-auth': directive('assetAuth', oneOf('none', 'key')),
  ranges: directive('ranges', oneOf('on', 'off', 'wrong', 'whole-206')),
  etag: directive('etag', oneOf('strong', 'weak', 'none', 'changing')),
  callback: directive('callback', callbackModes),
  'callback-delay': directive('callbackDelayMs', duration),
} as const satisfies Record<string, Directive>;

/** Reads directives joined by commas, such as the header holds. An empty text says nothing. */
export function parseScript(text: string): ScriptPart {
  const part: ScriptPart = {};
  const seen = new Set<string>();
  for (const piece of text.split(',')) {
    if (piece.trim() === '' && text.trim() === '') break;
    const equals = piece.indexOf('=');
    const name = piece.slice(0, equals).trim();
    const value = piece.slice(equals + 1).trim();
    if (equals < 0)
      throw new ScriptError(`expected name=value joined by commas, got ${JSON.stringify(piece.trim())}`);
    if (!Object.hasOwn(DIRECTIVES, name)) {
      throw new ScriptError(
        `expected one of the directives ${Object.keys(DIRECTIVES).join(', ')}, got ${JSON.stringify(name)}`,
      );
    }
    if (seen.has(name)) throw new ScriptError(`expected ${name} at most once`);
    seen.add(name);
    try {
      Object.assign(part, DIRECTIVES[name as keyof typeof DIRECTIVES].parse(value));
    } catch (error) {
      if (!(error instanceof Expected)) throw error;
      throw new ScriptError(`${name}: expected ${error.message}, got ${JSON.stringify(value)}`);
    }
  }
  return part;
}

/** The directives inside a prompt: the text of all its `[sim: …]`, joined. Empty when there is none. */
export function scriptTextIn(prompt: string): string {
  const texts: string[] = [];
  for (const opening of prompt.matchAll(/\[\s*sim\s*:/gi)) {
    const start = opening.index + opening[0].length;
    const end = prompt.indexOf(']', start);
    if (end < 0) throw new ScriptError('expected ] after [sim:');
    texts.push(prompt.slice(start, end));
  }
  return texts.join(',');
}

/** The header's text: bare directives, or in the brackets that a prompt needs. */
export function scriptTextOfHeader(header: string): string {
  return /^\s*\[\s*sim\s*:/i.test(header) ? scriptTextIn(header) : header;
}
