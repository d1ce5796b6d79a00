/**
 * What the answer to a poll says about a task: the table "poll" and the failure codes of `docs/provider.md`. Pure;
 * decided by status, code and state word. A poll that fails never fails a paid task: `failed` needs
 * a readable answer, about this very task, whose state word says so.
 */
import {
  isMarkup,
  keepAnswer,
  quote,
  readRetryAfterMs,
  type AnswerContext,
  type Exchange,
} from './answer.js';
import { parseJson } from './json.js';
import type { PollOutcome, Timing } from './outcomes.js';
import { isSuccessCode, readEnvelope, readTask, type TaskView } from './wire.js';

export interface PollContext extends AnswerContext {
  /** The task that was asked for. */
  readonly taskId: string;
}

type WordClass = 'pending' | 'running' | 'succeeded' | 'failed';

/** Every word that is not here is pending: a new word of the provider must not end anything. */
const WORDS: ReadonlyMap<string, WordClass> = new Map([
  ...['1', 'IN_PROGRESS', 'RUNNING', 'PROCESSING'].map((word) => [word, 'running'] as const),
  ...['3', 'SUCCESS', 'SUCCEEDED', 'SUCCEED', 'COMPLETED', 'DONE'].map(
    (word) => [word, 'succeeded'] as const,
  ),
  ...['2', 'FAILURE', 'FAILED', 'FAIL', 'ERROR', 'CANCELLED', 'CANCELED', 'EXPIRED'].map(
    (word) => [word, 'failed'] as const,
  ),
]);

/** Of the pending words, those that surely say "not begun". */
const QUEUED = new Set(['0', 'NOT_START', 'SUBMITTED', 'QUEUED', 'QUEUEING', 'PENDING', 'THROTTLED']);

/** Does this state word surely say that the task is still going on? Upper case. */
export function isGoingOn(word: string): boolean {
  return QUEUED.has(word) || classOf(word) === 'running';
}

/** By the provider's clock alone; what contradicts itself is not believed. */
function timingOf({ submittedAt, startedAt, finishedAt, updatedAt }: TaskView, over: boolean): Timing {
  const since = (at: number | null) =>
    submittedAt === null || at === null || at < submittedAt ? null : at - submittedAt;
  return { startedAfterMs: since(startedAt), endedAfterMs: over ? since(finishedAt ?? updatedAt) : null };
}

function classOf(word: string): WordClass {
  return WORDS.get(word) ?? 'pending';
}

/** Where the task is, and the word that says so (upper case; empty when the answer has none). */
export function readState(task: TaskView): { state: WordClass; word: string } {
  const outer = task.outerWord?.toUpperCase() ?? '';
  const inner = task.innerWord?.toUpperCase() ?? '';
  const hasUrl = task.videoUrl !== null;
  const word = outer || inner;
  if (word === '') return { state: hasUrl ? 'succeeded' : 'pending', word };
  // The gateway lags behind the upstream, or gave up before it did. A usable URL is what decides that: without one
  // the outer word stands. An inner failure never outruns the outer word, which also knows about the refund.
  if (outer && hasUrl && classOf(inner) === 'succeeded') return { state: 'succeeded', word: inner };
  return { state: classOf(word), word };
}

type MayResubmit = Extract<PollOutcome, { kind: 'failed' }>['mayResubmit'];

const RESUBMIT: Readonly<Record<string, MayResubmit>> = {
  SAFETY: 'never',
  'INPUT_PREPROCESSING.SAFETY.TEXT': 'never',
  'ASSET.INVALID': 'never',
  'INTERNAL.BAD_OUTPUT': 'once',
  'INPUT_PREPROCESSING.INTERNAL': 'later',
  'THIRD_PARTY.UNAVAILABLE': 'later',
  INTERNAL: 'later',
};

/**
 * May a task that failed with this code be submitted again (a new charge each time)? The longest dotted prefix of
 * the code that is in the table decides. No code: later. An unknown code: never, since it costs money.
 */
export function mayResubmit(code: string | null): MayResubmit {
  if (code === null) return 'later';
  const parts = code.toUpperCase().split('.', 8);
  for (let length = parts.length; length > 0; length -= 1) {
    const prefix = parts.slice(0, length).join('.');
    if (Object.hasOwn(RESUBMIT, prefix)) return RESUBMIT[prefix] ?? 'never';
  }
  return 'never';
}

export function classifyPoll(exchange: Exchange, context: PollContext): PollOutcome {
  const { httpStatus, failure } = exchange;
  const answer = keepAnswer('poll', exchange, context);
  const say = (text: string) => quote(text, context.apiKey);
  const unavailable = (reason: string, text: string): PollOutcome => ({
    kind: 'unavailable',
    reason,
    retryAfterMs: readRetryAfterMs(exchange, context.at),
    message: say(text),
    answer,
  });
  const misconfigured = (text: string): PollOutcome => ({
    kind: 'misconfigured',
    message: say(text),
    answer,
  });

  if (httpStatus === null)
    return unavailable(failure?.reason ?? 'internal', failure?.message ?? 'No answer came.');

  // A cut body is not read: what looks like JSON may be the beginning of something else.
  const body = failure ? undefined : parseJson(exchange.body);
  const envelope = readEnvelope(body);
  const said = envelope?.message ? `: ${envelope.message}` : '';

  if (envelope?.taskNotExist) return { kind: 'notVisible', answer };
  if (httpStatus === 401 || httpStatus === 403)
    return misconfigured(`The provider refuses the key (${httpStatus})${said}`);
  if (httpStatus >= 300 && httpStatus < 400)
    return misconfigured(`The provider answered with a redirect (${httpStatus}).`);
  if (httpStatus === 429) return unavailable('rateLimited', `The provider answered 429${said}`);
  if (httpStatus < 200 || httpStatus >= 300)
    return unavailable('httpStatus', `The provider answered ${httpStatus}${said}`);

  if (failure) return unavailable(failure.reason, `The answer ${httpStatus} broke off: ${failure.message}`);
  if (body === undefined && isMarkup(exchange)) {
    return misconfigured(`The provider answered ${httpStatus} with HTML: this is not its API.`);
  }
  const task = readTask(body);
  if (!envelope || !task)
    return unavailable('unreadable', `The provider answered ${httpStatus} with no readable JSON object.`);
  if (envelope.hasError) return unavailable('businessError', `The provider answered with an error${said}`);

  if (task.taskId !== null && task.taskId !== context.taskId) {
    // A mix-up of the gateway or a cache. Believing it would store the video of another request.
    return unavailable('otherTask', `The answer is about the task ${task.taskId}, not ${context.taskId}.`);
  }
  const { state, word } = readState(task);
  // A bare task has no envelope: with a state word of its own, a `code` in it is not about the call.
  const enveloped = !(task.bare && word !== '');
  const complains = enveloped && envelope.code !== null && !isSuccessCode(envelope.code);
  const speaks = task.recognised || task.videoUrl !== null;
  // Beside a code that is not a success only a video is believed; it cannot be there by mistake.
  if ((complains && !(state === 'succeeded' && task.videoUrl !== null)) || !speaks) {
    const what = complains ? `with the code ${envelope.code}` : 'without a task';
    return unavailable(complains ? 'businessError' : 'unreadable', `The provider answered ${what}${said}`);
  }

  const billing = { point: task.point, refund: task.refund };
  const timing = timingOf(task, state === 'succeeded' || state === 'failed');
  const shown = { timing, answer, ...(task.prompt === null ? {} : { prompt: task.prompt }) };
  switch (state) {
    case 'succeeded':
      if (task.videoUrl === null) return { kind: 'succeededWithoutUrl', billing, ...shown };
      return {
        kind: 'succeeded',
        videoUrl: task.videoUrl,
        posterUrl: task.posterUrl,
        lastFrameUrl: task.lastFrameUrl,
        billing,
        ...shown,
      };
    case 'failed':
      return {
        kind: 'failed',
        code: task.failureCode === null ? null : say(task.failureCode),
        message: task.failureText === null ? null : say(task.failureText),
        mayResubmit: mayResubmit(task.failureCode),
        billing,
        ...shown,
      };
    case 'pending':
    case 'running':
      return {
        kind: 'pending',
        running: state === 'running',
        progress: task.progress,
        word: say(word),
        queued: QUEUED.has(word),
        ...shown,
      };
  }
}
