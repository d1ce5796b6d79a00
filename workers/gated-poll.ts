/** A poll through the gate, as the poll stage and the archive stage make it. */
import type { Context } from './context.js';
import type { CallResult, Pass } from '../src/limits/gate.js';
import type { PollOutcome } from '../src/provider/outcomes.js';

export type GatedPoll =
  /** `heldMs`: how long all polls are held after this one, because it was answered with 429 or the provider is away. */
  | { readonly kind: 'asked'; readonly outcome: PollOutcome; readonly heldMs: number }
  | Extract<Pass, { kind: 'wait' }>;

export async function askForTask(
  context: Context,
  { id: generationId, taskId }: { readonly id: string; readonly taskId: string | null },
  signal: AbortSignal,
): Promise<GatedPoll> {
  const { provider, gate, log, now } = context;
  const pass = await gate.pass('poll', { generationId, signal });
  if (pass.kind === 'wait') return pass;
  const leftAt = now();
  const outcome = await provider.poll(taskId ?? '', { signal });
  // Stopped by ourselves: that says nothing about the task, not even about its deadline.
  if (signal.aborted && outcome.kind === 'unavailable')
    return { kind: 'wait', waitMs: 0, why: 'stopped', holds: 'generation' };
  log.debug({ generationId, taskId, outcome: outcome.kind, httpStatus: outcome.answer.httpStatus }, 'polled');
  const told = { generationId, probe: pass.probe, leftAgoMs: now() - leftAt, result: resultOf(outcome) };
  return { kind: 'asked', outcome, heldMs: await report(context, told) };
}

async function report(
  { gate, queues, log }: Context,
  told: Parameters<Context['gate']['report']>[1],
): Promise<number> {
  const { opened, closed, waitMs } = await gate.report('poll', told);
  if (opened === 'away')
    log.error({ stage: 'poll', alarm: 'provider_away' }, 'the provider seems to be away: polls are held');
  if (opened === 'rate_limited')
    log.warn({ stage: 'poll', holdMs: waitMs }, 'the provider said to slow down: polls are held');
  if (closed && waitMs === 0) {
    log.info({ stage: 'poll' }, 'the provider is back: polls go on');
    await queues.release('poll');
  }
  if (waitMs > 0) await queues.hold('poll', waitMs);
  return waitMs;
}

function resultOf(outcome: PollOutcome): CallResult {
  if (outcome.kind !== 'unavailable') return { kind: 'answered' };
  const { httpStatus } = outcome.answer;
  if (httpStatus === 429) return { kind: 'rateLimited', retryAfterMs: outcome.retryAfterMs };
  return { kind: httpStatus === null || httpStatus >= 500 ? 'away' : 'answered' };
}
