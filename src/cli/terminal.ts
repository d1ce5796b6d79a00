/** What the command line says: results to stdout, all else to stderr, and nothing that could steer a terminal. */
import { ReelhaulError } from '../errors.js';
import type { GenerationEvent } from '../store/event-stream.js';
import type { Notification } from '../store/outbox.js';
import type { Generation } from '../generation/record.js';
import type { Erased, Outlook, Reelhaul } from '../reelhaul.js';

export const print = (text: string) => void process.stdout.write(`${text}\n`);
export const complain = (text: string) => void process.stderr.write(`${text}\n`);

/** Texts of apps and of the provider may hold anything: nothing of it may steer a terminal. */
function plain(text: string, maxCharacters = 1000): string {
  const line = text.replaceAll(/\s+/g, ' ').replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '\ufffd');
  return Array.from(line).slice(0, maxCharacters).join('');
}

export function show(generation: Generation, json: boolean): void {
  if (json) return print(JSON.stringify(generation));
  const { id, state, failure, assets, taskId, charge, warnings, waitsFor } = generation;
  print(`${id}  ${state}${taskId === null ? '' : `  task ${taskId}`}  charge: ${charge}`);
  for (const other of waitsFor) print(`  waits for generation ${other}`);
  if (failure) print(`  failed in ${failure.stage}: ${plain(failure.message)} [${failure.code}]`);
  if (assets)
    print(`  video  ${assets.video.key}  ${assets.video.sizeBytes} bytes  sha256 ${assets.video.sha256}`);
  for (const warning of warnings) print(`  warning: ${plain(warning.message)} [${warning.code}]`);
}

/** Waits for the end, and says so when the wait needs a decision: `unconfirmed` can last until an operator acts. */
export function waitAloud(reelhaul: Reelhaul, id: string, timeoutMs?: number): Promise<Generation> {
  let told = false;
  return reelhaul.waitFor(id, {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    onProgress({ state }) {
      if (state === 'unconfirmed' && !told) complain(unconfirmed(id));
      told = state === 'unconfirmed';
    },
  });
}

const unconfirmed = (id: string) =>
  [
    `Generation ${id} is unconfirmed: the provider may have accepted and billed it, but its answer was lost.`,
    'Still waiting for a callback or for one of these:',
    `  reelhaul decide ${id} --adopt <taskId>   the task is in the provider's list: follow it`,
    `  reelhaul decide ${id} --resubmit         submit again; it may be billed twice`,
    `  reelhaul decide ${id} --give-up          fail it; a late callback still revives it`,
  ].join('\n');

export function showList(generations: readonly Generation[]): void {
  if (generations.length === 0) return print('none');
  for (const { id, state, createdAt, attempts, request } of generations) {
    const prompt = plain(request.prompt, 50);
    print(
      `${id}  ${state.padEnd(11)}  ${new Date(createdAt).toISOString()}  ${attempts.poll} polls  ${prompt}`,
    );
  }
}

export function showOutlook({ waitsBecause, ahead, nextPollAt }: Outlook): void {
  const at = (instant: number) => new Date(instant).toISOString();
  if (waitsBecause) {
    const { code, message, untilAt } = waitsBecause;
    print(`  waits because: ${plain(message)} [${code}]${untilAt === null ? '' : ` until ${at(untilAt)}`}`);
  }
  if (ahead !== null && ahead > 0) print(`  before it: ${ahead}`);
  if (nextPollAt !== null) print(`  next poll at ${at(nextPollAt)}`);
}

export function showErased(erased: Erased, json: boolean): void {
  if (json) return print(JSON.stringify(erased));
  const { id, state, charge, filesErased } = erased;
  const files = filesErased ? '' : '; a worker removes its files';
  print(`${id}  erased (was ${state})  charge: ${charge}${files}`);
}

export function showEvent(event: GenerationEvent, json: boolean): void {
  if (json) return print(JSON.stringify(event));
  const { at, generationId, to, type, text } = event;
  print(`${new Date(at).toISOString()}  ${generationId}  ${to ?? `${type} ${plain(text ?? '')}`}`);
}

export function showNotifications(notifications: readonly Notification[]): void {
  if (notifications.length === 0) return print('none');
  for (const { id, type, attempts, dead, lastError, url } of notifications) {
    print(`${id}  ${type}  ${dead ? 'dead' : 'due'} after ${attempts} tries  ${url}`);
    if (lastError !== null) print(`  ${lastError}`);
  }
}

/** What went wrong, for people: a stack only for an unexpected error. */
export function explain(error: unknown): string {
  if (error instanceof ReelhaulError) return error.message;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string')
    return `${error.message} [${error.code}]`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
