/** `POST /runway/feed`: what the provider says about a task, and the ways in which it fails to. */
import {
  gatewayError,
  HANG,
  html,
  json,
  redirect,
  RESET,
  retryAfterHeader,
  SWITCHING,
  text,
  type Answer,
} from './answers.js';
import { feedBody, type AssetUrls } from './shapes.js';
import { stepAt, type Step } from './script-fields.js';
import { durationArgument, numberArgument } from './script-values.js';
import { phaseOf, type Task } from './task.js';

/** How long a dripping answer takes unless the step says otherwise. */
const DRIP_MS = 2000;

/** The answer for a task the provider does not know, or not yet. */
export function notVisible(status: number): Answer {
  return json(status, { code: 'task_not_exist', message: 'task_not_exist', data: null });
}

export interface FeedAnswer {
  readonly answer: Answer;
  /** For the ledger: the step, or the phase that was shown. */
  readonly outcome: string;
}

/** Answers one poll of `task` and counts it. `urlsOf` is asked after counting, since links depend on it. */
export function answerPoll(task: Task, nowMs: number, urlsOf: (task: Task) => AssetUrls): FeedAnswer {
  const { script } = task;
  task.polls += 1;
  if (nowMs < task.visibleAt) {
    return { answer: notVisible(script.notVisibleStatus), outcome: 'not-visible' };
  }
  const step = stepAt(script.poll, task.visiblePolls);
  task.visiblePolls += 1;
  const phase = phaseOf(task, nowMs);
  const outcome = step.word === 'ok' ? phase : step.word;

  function show(manner: Answer['manner'], overMs = 0): FeedAnswer {
    if (phase === 'succeeded') {
      task.succeededPolls += 1;
      // A fresh poll gives a fresh link where the last one died.
      if (task.link <= task.deadLink) task.link = task.deadLink + 1;
    }
    return { answer: { ...json(200, feedBody(task, nowMs, urlsOf(task))), manner, overMs }, outcome };
  }

  switch (step.word) {
    case 'ok':
      return show('whole');
    case 'drip':
      return show('drip', durationArgument(step, DRIP_MS));
    case 'truncated':
    case 'endless':
      return show(step.word);
    default:
      return { answer: faultyAnswer(step, task, nowMs), outcome };
  }
}

/** An answer that says nothing about the task. */
function faultyAnswer(step: Step, task: Task, nowMs: number): Answer {
  switch (step.word) {
    case 'not-visible':
      return notVisible(task.script.notVisibleStatus);
    case 'html':
      return html(numberArgument(step, 200));
    case 'garbage':
      return text(200, '{"code":"success","data":{"task_id":}}\u0000');
    case 'empty':
      return text(numberArgument(step, 200), '');
    case 'reset':
      return RESET;
    case 'hang':
      return HANG;
    case 'redirect':
      return redirect('/login');
    case 'business':
      return json(200, { code: step.argument ?? 'upstream_error', message: 'simulated', data: null });
    case 'quota':
      return gatewayError(numberArgument(step, 403), 'quota_not_enough', 'quota is not enough');
    default: {
      const status = Number(step.word);
      if (status === 101) return SWITCHING;
      if (status < 400) return redirect('/login', status);
      const header = retryAfterHeader(task.script.retryAfter, nowMs);
      return gatewayError(status, '', `simulated ${status}`, header);
    }
  }
}
