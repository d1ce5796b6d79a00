/**
 * Decides a submit: whether it is admitted, which script and faults apply, which tasks it creates and bills, and its answer.
 */
import type { IncomingMessage } from 'node:http';
import { gatewayError, json, parseJson, readBody, UNAUTHORIZED, type Answer } from './answers.js';
import type { CallbackSender } from './callbacks.js';
import { rollNormal, rollTaskId } from './dice.js';
import type { Rates } from './faults.js';
import type { Generation, Generations } from './generations.js';
import type { InputFetcher } from './inputs.js';
import type { LedgerSubmit } from './ledger.js';
import type { LedgerBook } from './ledger-book.js';
import type { Limiter } from './limits.js';
import type { DurationSpread } from './options.js';
import { parseScript, scriptTextIn, scriptTextOfHeader } from './script.js';
import { DEFAULT_SCRIPT, stepAt, type Script, type ScriptPart } from './script-fields.js';
import { ScriptError } from './script-values.js';
import { answerSubmit, refusalOf, submitSchema, tasksCreatedBy } from './submit.js';
import { createTask, type Task } from './task.js';
import type { Timers } from './timers.js';

export interface IntakeDeps {
  readonly seed: number;
  readonly now: () => number;
  readonly timers: Timers;
  readonly ledger: LedgerBook;
  readonly generations: Generations;
  readonly limiter: Limiter;
  readonly callbacks: CallbackSender;
  readonly inputs: InputFetcher;
  readonly taskDurationMs: number | DurationSpread;
  readonly rates: () => Rates;
  /** Directives for every generation. */
  readonly defaultScript: () => ScriptPart;
  /** The answer to every call during an outage; null when there is none. */
  readonly outage: () => Answer | null;
  readonly isAuthorized: (request: IncomingMessage) => boolean;
  /** The origin under which the client knows us: its links must work for it, in a container too. */
  readonly originOf: (request: IncomingMessage) => string;
}

export interface Intake {
  /** Decides a submit up to its answer; what was done is in the entry. */
  decide(request: IncomingMessage, entry: LedgerSubmit): Promise<Answer>;
}

export function createIntake(deps: IntakeDeps): Intake {
  const { seed, now, timers, ledger, generations, limiter, callbacks } = deps;

  function durationOf(generation: Generation, script: Script): number {
    if (script.durationMs !== null) return script.durationMs;
    const wish = deps.taskDurationMs;
    if (typeof wish === 'number') return wish;
    const factor = Math.exp((wish.sigma ?? 0.4) * rollNormal(seed, 'duration', generation.name));
    return Math.min(wish.medianMs * factor, wish.maxMs ?? 10 * wish.medianMs);
  }

  function newTaskId(generation: Generation, script: Script): string {
    for (let attempt = 0; ; attempt += 1) {
      const taskId = rollTaskId(seed, script.id, generation.name, generation.tasks, attempt);
      if (!ledger.task(taskId)) return taskId;
    }
  }

  /** The script of this submit, each layer over the one before; throws a `ScriptError`. */
  function scriptOf(
    request: IncomingMessage,
    prompt: string,
    generation: Generation,
    entry: LedgerSubmit,
  ): Script {
    const inPrompt = scriptTextIn(prompt);
    const inHeader = scriptTextOfHeader(String(request.headers['x-simulator-script'] ?? ''));
    entry.script = [inPrompt, inHeader]
      .map((part) => part.trim())
      .filter((part) => part !== '')
      .join(', ');
    return {
      ...DEFAULT_SCRIPT,
      ...generation.drawn.script,
      ...deps.defaultScript(),
      ...parseScript(inPrompt),
      ...parseScript(inHeader),
    };
  }

  /** Creates and bills a task; its clock starts now, whatever becomes of the answer. */
  function accept(generation: Generation, script: Script, entry: LedgerSubmit, origin: string): Task {
    const task = createTask(
      {
        taskId: newTaskId(generation, script),
        submitSeq: entry.seq,
        generationKey: generation.key,
        generationId: generation.generationId,
        prompt: entry.prompt ?? '',
        callbackUrl: entry.callbackUrl ?? '',
        script,
        origin,
        createdAt: now(),
      },
      durationOf(generation, script),
    );
    generation.tasks += 1;
    entry.taskIds.push(task.taskId);
    ledger.taskCreated(task);
    callbacks.schedule(task);
    return task;
  }

  return {
    async decide(request, entry) {
      const body = parseJson(await readBody(request));
      const away = deps.outage();
      if (away !== null) {
        entry.outcome = 'outage';
        return away;
      }
      if (!deps.isAuthorized(request)) {
        entry.outcome = 'unauthorized';
        return UNAUTHORIZED;
      }
      const refusal = refusalOf(body);
      if (refusal !== null) {
        entry.outcome = 'bad-request';
        return refusal;
      }
      const { prompt, model, image, last_image, callback_url: callbackUrl } = submitSchema.parse(body);
      const generation = generations.of(prompt, callbackUrl, deps.rates());
      entry.prompt = prompt;
      entry.callbackUrl = callbackUrl;
      entry.generationId = generation.generationId;
      entry.generationKey = generation.key;
      entry.faults = [...generation.drawn.faults];

      let script: Script;
      try {
        script = scriptOf(request, prompt, generation, entry);
      } catch (error) {
        if (!(error instanceof ScriptError)) throw error;
        entry.outcome = 'bad-script';
        return json(400, { code: 'simulator_script_invalid', message: error.message, data: null });
      }

      const limited = limiter.refuse(now(), ledger.tasksInFlight(now()));
      if (limited !== null) {
        entry.outcome = 'rate-limited';
        const retryAfter =
          limited.retryAfterMs === null ? null : String(Math.ceil(limited.retryAfterMs / 1000));
        return gatewayError(429, 'rate_limit_exceeded', 'too many requests', retryAfter);
      }

      const isMeant = script.submitModels?.includes(model) ?? true;
      const step = stepAt(isMeant ? script.submit : [], generation.submits);
      generation.submits += 1;
      if (tasksCreatedBy(step) > 0) {
        if (image !== undefined) entry.inputs.push(await deps.inputs.fetch('image', image));
        if (last_image !== undefined) entry.inputs.push(await deps.inputs.fetch('last_image', last_image));
        const bad = entry.inputs.find(({ error }) => error !== null);
        if (bad) {
          entry.outcome = 'bad-input';
          return gatewayError(400, 'invalid_request', `${bad.field}: ${bad.error}`);
        }
      }
      let task: Task | null = null;
      for (let left = tasksCreatedBy(step); left > 0; left -= 1) {
        task = accept(generation, script, entry, deps.originOf(request));
      }
      entry.outcome = step.word;
      ledger.changed();
      if (task && script.callback.includes('early')) await callbacks.postEarly(task);
      if (script.submitDelayMs > 0) await timers.sleep(script.submitDelayMs);
      return answerSubmit(step, script, task, now());
    },
  };
}
