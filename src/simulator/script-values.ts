/** How the value of a directive is read (`script.ts` has the grammar). */
import { ReelhaulError } from '../errors.js';
import { CALLBACK_MODES, type CallbackMode, type Script, type Step, type Steps } from './script-fields.js';

/** A script that cannot be understood; the message says where and what was expected. */
export class ScriptError extends ReelhaulError {
  constructor(message: string) {
    super('invalid_script', message);
  }
}

/** A value that does not fit: says what would. The caller adds the directive and what was got. */
export class Expected extends Error {}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a duration text; throws what was expected instead. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (text === '0') return 0;
  if (!match) throw new Expected('a duration such as 250ms, 3s or 2m');
  return Number(match[1]) * (UNIT_MS[match[2] ?? ''] ?? 1);
}

export function durationOr(word: string): (text: string) => number {
  return (text) => {
    if (text === word) return Infinity;
    try {
      return duration(text);
    } catch {
      throw new Expected(`a duration such as 250ms or 3s, or ${word}`);
    }
  };
}

export function countOrForever(text: string): number {
  if (text === 'forever') return Infinity;
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new Expected('a count from 1, or forever');
  return Number(text);
}

export function oneOf<const T extends string>(...words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((candidate) => candidate === text);
    if (word === undefined) throw new Expected(`one of ${words.join(', ')}`);
    return word;
  };
}

export function httpStatus(text: string): number {
  if (!/^[2-5]\d\d$/.test(text)) throw new Expected('an HTTP status from 200 to 599');
  return Number(text);
}

/** `403` or `403:insufficient_user_quota`: the status of an answer and the code in it. */
export function statusAndCode(text: string): { readonly status: number; readonly code: string | null } {
  const [status = '', code = null] = text.split(':');
  return { status: httpStatus(status), code };
}

export function size(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(B|KB|MB|GB)$/i.exec(text);
  if (!match) throw new Expected('a size such as 500KB, 50MB or 2GB');
  const powers = ['B', 'KB', 'MB', 'GB'].indexOf((match[2] ?? '').toUpperCase());
  return Math.round(Number(match[1]) * 1024 ** powers);
}

export function anyText(text: string): string {
  if (text === '') throw new Expected('a text');
  return text;
}

export function successCode(text: string): number | string {
  if (text === '200') return 200;
  if (text === '0') return 0;
  if (text === '"200"') return '200';
  if (text === 'success') return 'success';
  throw new Expected('200, "200", 0 or success');
}

export function retryAfter(text: string): Script['retryAfter'] {
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

export function result(text: string): Script['result'] {
  if (text === 'success') return { succeeds: true, failureCode: null };
  if (text === 'failed') return { succeeds: false, failureCode: null };
  const code = /^failed:([A-Z0-9_.]+)$/i.exec(text)?.[1];
  if (code === undefined) throw new Expected('success, failed, or failed: and a failure code');
  return { succeeds: false, failureCode: code };
}

export function callbackModes(text: string): readonly CallbackMode[] {
  return text.split('+').map((word) => oneOf(...CALLBACK_MODES)(word.trim()));
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
export const SUBMIT_STATUS = /^(101|[345]\d\d)(-after)?$/;

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
export const BARE_STATUS = /^(101|[345]\d\d)$/;

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

export function stepsOf(vocabulary: Vocabulary, status: RegExp): (text: string) => Steps {
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
