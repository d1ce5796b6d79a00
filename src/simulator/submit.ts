/**
 * `POST /runway/pro/generate`: what one step of a script does with a submit: how many tasks it creates, and what the
 * client gets to see of it.
 */
import { z } from 'zod';
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
import { type Script, type Step } from './script-fields.js';
import { durationArgument, numberArgument, statusAndCode } from './script-values.js';
import { idValue, taskView } from './shapes.js';
import type { Task } from './task.js';

const DRIP_MS = 2000;

/**
 * What the documented tables require. Anything else passes through, as at the provider; a wrong type of an optional
 * field is refused: otherwise the mistake would go unnoticed.
 */
export const submitSchema = z.looseObject({
  callback_url: z.url({ protocol: /^https?$/ }),
  prompt: z.string().min(1),
  model: z.string().min(1),
  ratio: z.string().min(1),
  image: z.string().optional(),
  style: z.string().optional(),
  options: z.looseObject({}).optional(),
  last_image: z.string().optional(),
});

/** Why a body cannot be taken, as the provider would answer; null when it can. */
export function refusalOf(body: unknown): Answer | null {
  if (typeof body !== 'object' || body === null) {
    return gatewayError(400, 'invalid_request', 'the body is not a JSON object');
  }
  // The documented answer to a missing callback URL, also from callers that only poll.
  if (!('callback_url' in body) || body.callback_url === '') {
    return json(400, { code: 'callback_url_empty', message: 'callback_url_empty', data: null });
  }
  const checked = submitSchema.safeParse(body);
  if (checked.success) return null;
  const problems = checked.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  return gatewayError(400, 'invalid_request', problems.join('; '));
}

/** How many tasks this step creates. */
export function tasksCreatedBy(step: Step): number {
  if (step.word === 'double') return 2;
  return step.word === 'ok' || step.word === 'with-id' || step.word.endsWith('-after') ? 1 : 0;
}

/** The answer of a submit that went well. */
function acceptance(task: Task, nowMs: number): Answer {
  const { script } = task;
  const envelope = (data: unknown): Record<string, unknown> => ({
    code: script.code ?? 200,
    [script.messageField ?? 'msg']: 'success',
    data,
    exec_time: 0.042,
  });
  const id = idValue(task);
  switch (script.submitShape) {
    case 'task-id':
      return json(200, envelope({ task_id: id }));
    case 'data-id':
      return json(200, envelope({ id }));
    case 'string':
      return json(200, envelope(id));
    case 'task': {
      const shape = script.shape === 'W' ? 'W' : 'O';
      const noUrls = { video: null, poster: null, lastFrame: null };
      return json(200, envelope(taskView(task, shape, 'queued', nowMs, noUrls)));
    }
    case 'top-task-id':
      return json(200, { code: script.code ?? 200, task_id: id });
    case 'top-id':
      return json(200, { code: script.code ?? 200, id });
  }
}

/**
 * What the client sees of this step. `task` is the one created (the second where there are two), null where none was.
 */
export function answerSubmit(step: Step, script: Script, task: Task | null, nowMs: number): Answer {
  const retryAfter = retryAfterHeader(script.retryAfter, nowMs);
  // The answer that would have been sent: what is truncated or drips is its bytes. Without a task it names none.
  const good = task ? acceptance(task, nowMs) : json(200, { code: 200, msg: 'success', data: {} });
  switch (step.word) {
    case 'ok':
    case 'double':
      return good;
    case 'reset-before':
    case 'reset-after':
      return RESET;
    case 'hang-before':
    case 'hang-after':
      return HANG;
    case 'truncated-before':
    case 'truncated-after':
      return { ...good, manner: 'truncated' };
    case 'drip-after':
      return { ...good, manner: 'drip', overMs: durationArgument(step, DRIP_MS) };
    case 'endless-after':
      return { ...good, manner: 'endless' };
    case 'empty-before':
    case 'empty-after':
      return text(numberArgument(step, 200), '');
    case 'no-id-before':
    case 'no-id-after':
      return json(200, { code: script.code ?? 200, msg: 'success', data: {} });
    case 'garbage-before':
    case 'garbage-after':
      return text(200, '{"code":200,"msg":"success","data":{"task_id"\u0000');
    case 'html-before':
    case 'html-after':
      return html(numberArgument(step, 200));
    case 'with-id':
      return json(numberArgument(step, 500), {
        code: 'upstream_error',
        message: 'simulated: the task exists all the same',
        data: { task_id: task ? idValue(task) : null },
      });
    case 'redirect':
      return redirect('/login');
    case 'quota':
      return gatewayError(numberArgument(step, 403), 'quota_not_enough', 'quota is not enough');
    case 'flat':
    case 'error':
      return complaint(step.word, step.argument ?? '400');
    case 'rejected':
      return json(200, {
        code: step.argument ?? 'invalid_parameter',
        message: 'simulated: this request was rejected',
        data: null,
      });
    case 'error-in-200':
      // `none` leaves the code out.
      return json(200, {
        error: {
          message: 'simulated error in a 200',
          type: 'comet_api_error',
          ...(step.argument === 'none' ? {} : { code: step.argument ?? 'invalid_parameter' }),
        },
      });
    case 'rate-in-200':
      return json(200, {
        code: step.argument ?? 'rate_limit_exceeded',
        message: 'simulated: too many requests',
        data: null,
      });
    case 'invalid-request':
      return gatewayError(500, 'invalid_request', 'simulated: invalid request');
    default:
      return answerStatus(Number(step.word.slice(0, 3)), step.word.endsWith('-after'), retryAfter);
  }
}

/** A code, flat or inside `error`. Without a code `flat` has none of the API's envelopes. */
function complaint(form: 'flat' | 'error', argument: string): Answer {
  const { status, code } = statusAndCode(argument);
  if (form === 'error') return gatewayError(status, code ?? '', `simulated ${status}`);
  const message = `simulated ${status}`;
  return json(status, code === null ? { message } : { code, message, data: null });
}

/** A bare status. From a gateway in front (502 and above, except 503) it is a page, else the JSON envelope. */
function answerStatus(status: number, lost: boolean, retryAfter: string | null): Answer {
  if (status === 101) return SWITCHING;
  if (status < 400) return redirect('/login', status);
  if (status === 502 || status >= 504) return html(status);
  return gatewayError(
    status,
    '',
    lost ? 'simulated: lost after acceptance' : `simulated ${status}`,
    retryAfter,
  );
}
