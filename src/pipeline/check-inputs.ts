/**
 * The check of a generation's inputs before anything is paid: what the provider could not fetch, or would refuse, ends as
 * `input_unusable`. It has tries of its own. What takes longer than a moment goes on without the job that began it, which
 * comes back when the check is done: a slow host delays only what starts from it.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { InvalidInputError, StorageError } from '../errors.js';
import { generationsBefore, inputsOf, MAX_INPUT_BYTES, type Input } from '../generation/inputs.js';
import type { GenerationRecord } from '../generation/record.js';
import { isTerminal } from '../generation/states.js';
import { readPicture } from '../media/still.js';
import { AssetError } from '../outbound/asset-error.js';
import { openAsset } from '../outbound/download.js';
import { createFairSlots } from '../outbound/fair-slots.js';
import type { KeptAgents } from '../outbound/guarded-agent.js';
import { withinLimit } from '../outbound/limit.js';
import { backoffMs } from '../polling/schedule.js';
import type { Storage } from '../storage/storage.js';
import { fail, resumeAfter } from './advance.js';
import type { Hub } from './context.js';
import { findInput } from './input-files.js';

/** Inputs that were good are checked again when the submit comes this much later. */
const GOOD_FOR_MS = 600_000;
/** The time a job waits for its check. */
const AT_ONCE_MS = 300;
/** Checks at once, per process; one host has at most half of them. */
const CHECKS = 40;
/** A check may end this long after its own limit. */
const GRACE_MS = 5000;
const STORAGE_WAIT_MS = 5000;
const MAX_BACKOFF_MS = 60_000;

type Verdict =
  | { readonly kind: 'good' }
  /** It stays so: nothing is gained by asking again. */
  | { readonly kind: 'bad'; readonly why: string }
  /** It may be otherwise later. */
  | { readonly kind: 'unreachable'; readonly why: string; readonly retryAfterMs: number | null }
  /** It was not looked at: the storage is away, or another generation is not over. */
  | { readonly kind: 'later'; readonly waitMs: number };

/** The job is to come again. */
export interface Postponed {
  readonly delayMs: number;
  /** Called once the job is delayed: what ended while it ran could not bring it forward. */
  readonly afterwards?: () => Promise<void>;
}

export interface InputChecks {
  /** Null: it may be submitted. */
  check(record: GenerationRecord): Promise<Postponed | null>;
  /** Ends the checks that go on. */
  close(): Promise<void>;
}

interface Deps {
  readonly hub: Hub;
  readonly storage: Storage;
  /** Connections to hosts of inputs. */
  readonly hosts: Pick<KeptAgents, 'agentFor'>;
}

export function createInputChecks(deps: Deps): InputChecks {
  const { hub } = deps;
  const { config, now, queues, log } = hub;
  const running = new Map<string, Promise<number | null>>();
  const slots = createFairSlots(CHECKS, now);
  const closing = new AbortController();
  setMaxListeners(0, closing.signal);

  /** The whole check, up to what is written of it. Returns the wait that follows; null: it may be submitted. */
  async function run(record: GenerationRecord): Promise<number | null> {
    const verdict = await lookAt(deps, record, closing.signal);
    closing.signal.throwIfAborted();
    return conclude(hub, record, verdict);
  }

  /** No job waits for it any more: the job comes back later. */
  async function bringBack(generationId: string, checking: Promise<number | null>): Promise<void> {
    try {
      await queues.hastenTo('submit', generationId, (await checking) ?? 0);
    } catch (error) {
      if (!closing.signal.aborted)
        log.warn({ generationId, err: error }, 'a check of inputs did not come to its end; it begins anew');
    }
  }

  return {
    async check(record) {
      const { id, inputsCheckedAt } = record;
      const inputs = inputsOf(record.request).filter(({ input }) =>
        needsCheck(input, config.INPUT_URL_CHECK),
      );
      if (inputs.length === 0) return null;
      if (inputsCheckedAt !== null && Math.abs(now() - inputsCheckedAt) < GOOD_FOR_MS) return null;
      const delayMs = config.INPUT_TIMEOUT_MS + GRACE_MS;
      const afterwards = async () => {
        if (!running.has(id)) await queues.hasten('submit', id);
      };
      if (running.has(id)) return { delayMs, afterwards };
      const hosts = [...new Set(inputs.map(({ input }) => hostOf(input)))];
      const release = slots.take(hosts);
      if (release === null) return { delayMs: slots.waitMs(hosts) };
      const checking = run(record).finally(() => {
        release();
        running.delete(id);
      });
      running.set(id, checking);
      const soon = await Promise.race([checking, wait(AT_ONCE_MS, 'slow' as const, { ref: false })]);
      if (soon !== 'slow') return soon === null ? null : { delayMs: soon };
      void bringBack(id, checking);
      return { delayMs, afterwards };
    },

    async close() {
      closing.abort(new Error('The worker stops.'));
      await Promise.allSettled(running.values());
    },
  };
}

const needsCheck = (input: Input, urlsToo: boolean): boolean => typeof input !== 'string' || urlsToo;
const hostOf = (input: Input): string => (typeof input === 'string' ? new URL(input).host : 'storage');

/** Writes down what a check came to. Returns the wait that follows; null: the generation may be submitted. */
async function conclude(hub: Hub, record: GenerationRecord, verdict: Verdict): Promise<number | null> {
  const { config, store, now, dice } = hub;
  switch (verdict.kind) {
    case 'good':
      return (await store.amend(record, { set: { inputsCheckedAt: now(), inputFailures: null } })) ? null : 0;
    case 'later':
      return verdict.waitMs;
    case 'bad':
      await endUnusable(hub, record, verdict.why);
      return 0;
    case 'unreachable': {
      const failures = record.inputFailures + 1;
      if (failures >= config.INPUT_ATTEMPTS) {
        await endUnusable(hub, record, `${failures} tries; the last: ${verdict.why}`);
        return 0;
      }
      await store.amend(record, { set: { inputFailures: failures } });
      const backoff = backoffMs(failures, config.INPUT_BACKOFF_MS, MAX_BACKOFF_MS, dice());
      return Math.max(backoff, verdict.retryAfterMs ?? 0);
    }
  }
}

async function endUnusable(hub: Hub, record: GenerationRecord, message: string): Promise<void> {
  await fail(hub, record, { code: 'input_unusable', message, stage: 'submit', retryable: true });
  // The other one may have been retried between the look and this end.
  for (const id of generationsBefore(record.request)) {
    const before = await hub.store.get(id);
    if (before !== null && !isTerminal(before.state)) await resumeAfter(hub, id);
  }
}

/** The first thing that is wrong with its inputs. */
async function lookAt(deps: Deps, record: GenerationRecord, signal: AbortSignal): Promise<Verdict> {
  const { config } = deps.hub;
  const limitMs = config.INPUT_TIMEOUT_MS;
  for (const { field, input } of inputsOf(record.request)) {
    if (!needsCheck(input, config.INPUT_URL_CHECK)) continue;
    const look = (within: AbortSignal) =>
      typeof input === 'string' ? lookAtUrl(deps, input, within) : lookAtFile(deps, record, input);
    const tooLong = () =>
      typeof input === 'string'
        ? new AssetError('unavailable', `It took longer than ${limitMs} ms to fetch.`)
        : new StorageError('The storage does not answer.', true);
    try {
      const verdict = await withinLimit(limitMs, signal, look, tooLong);
      if (verdict.kind !== 'good')
        return 'why' in verdict ? { ...verdict, why: `${field}: ${verdict.why}` } : verdict;
    } catch (error) {
      if (signal.aborted) throw error;
      // A link that leads out of the storage, a folder: nothing but what the key names is wrong.
      const ofTheKey =
        error instanceof StorageError && !error.retryable && Object.hasOwn(Object(input), 'storageKey');
      if (ofTheKey || error instanceof InvalidInputError)
        return { kind: 'bad', why: `${field}: ${error.message}` };
      if (error instanceof StorageError) {
        deps.hub.log.error(
          { generationId: record.id, alarm: 'storage', err: error },
          'an input cannot be read',
        );
        return { kind: 'later', waitMs: STORAGE_WAIT_MS };
      }
      if (!(error instanceof AssetError)) throw error;
      return verdictOn(error, field);
    }
  }
  return { kind: 'good' };
}

function verdictOn({ kind, message, httpStatus, retryAfterMs }: AssetError, field: string): Verdict {
  const redirects = httpStatus !== null && httpStatus >= 300 && httpStatus < 400;
  if (kind === 'forbiddenHost') {
    return { kind: 'bad', why: `${field}: its host has a private address, which the provider cannot reach.` };
  }
  if ((kind === 'gone' || kind === 'unavailable') && !redirects)
    return { kind: 'unreachable', why: `${field}: ${message}`, retryAfterMs };
  return { kind: 'bad', why: `${field}: ${message}` };
}

/** As the provider fetches it: at once, without redirects, and whole. @throws AssetError */
async function lookAtUrl({ hub, hosts }: Deps, url: string, signal: AbortSignal): Promise<Verdict> {
  const { config, now } = hub;
  const { body, expectedBytes } = await openAsset(url, {
    signal,
    agents: hosts,
    userAgent: config.ARCHIVE_USER_AGENT,
    totalTimeoutMs: config.INPUT_TIMEOUT_MS,
    idleTimeoutMs: config.INPUT_TIMEOUT_MS,
    maxBytes: MAX_INPUT_BYTES,
    maxResumes: 0,
    maxRedirects: 0,
    now,
  });
  await readPicture(body, expectedBytes);
  return { kind: 'good' };
}

/** @throws AssetError, StorageError */
async function lookAtFile(
  { hub, storage }: Deps,
  record: GenerationRecord,
  input: Exclude<Input, string>,
): Promise<Verdict> {
  if (hub.config.PUBLIC_URL === '')
    return { kind: 'bad', why: 'PUBLIC_URL is not set where the worker runs: the provider cannot fetch it.' };
  const found = await findInput(hub, record, input);
  if (found.kind === 'awaited') return { kind: 'later', waitMs: 0 };
  if (found.kind === 'none') return { kind: 'bad', why: found.why };
  const { key } = found.file;
  const stored = await storage.stat(key);
  if (stored === null) return { kind: 'bad', why: `Nothing is stored as ${key}.` };
  if (stored.sizeBytes > MAX_INPUT_BYTES)
    return { kind: 'bad', why: `It has ${stored.sizeBytes} bytes; the limit is ${MAX_INPUT_BYTES}.` };
  await readPicture(await storage.read(key), stored.sizeBytes);
  return { kind: 'good' };
}
