/**
 * The producer's library: enqueue generations, look at them, wait for them, decide about them. It needs nothing but
 * Redis and carries no worker code.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { v7 as uuidv7 } from 'uuid';
import type { Hub } from './hub.js';
import {
  IdempotencyConflictError,
  InvalidInputError,
  NotFoundError,
  RebillNotAllowedError,
  RedisUnusableError,
  ReelhaulError,
  StateConflictError,
  WaitTimeoutError,
} from './errors.js';
import { isCursor, readEvents, type EventFilter, type GenerationEvent } from './generation/events.js';
import { createFinishWatch } from './generation/finishes.js';
import { readOrder, type EnqueueOptionsInput, type Order } from './generation/options.js';
import {
  readRecord,
  toGeneration,
  type FieldPatch,
  type Generation,
  type GenerationRecord,
} from './generation/record.js';
import { requestWarnings, type GenerationRequestInput } from './generation/request.js';
import { withoutContent, type Notification } from './generation/outbox.js';
import { isTerminal, stageOf, type State } from './generation/states.js';
import { adoptTask, advance, fail, sameTaskIds, hastenNotification, settle } from './pipeline.js';
import type { RawAnswer } from './provider/outcomes.js';
import type { Reminder } from './queues.js';
import type { AssetName } from './storage/keys.js';
import type { Storage } from './storage/storage.js';

const MAX_PAGE = 500;
const ENQUEUE_CHUNK = 500;
const DEFAULT_LINK_SECONDS = 3600;

export interface ListQuery {
  readonly state?: State;
  readonly tenant?: string;
  /** Created at this instant or later, epoch milliseconds. */
  readonly createdAfter?: number;
  /** Created before this instant, epoch milliseconds. */
  readonly createdBefore?: number;
  /** Default 50, at most 500. */
  readonly limit?: number;
  /** The `cursor` of the page before. */
  readonly cursor?: string;
}

/** One of many: a request with its options beside it. */
export type EnqueueItem = EnqueueOptionsInput & { readonly request: GenerationRequestInput };

/** What became of one item; `replayed` when its idempotency key was known. */
export type EnqueueResult =
  | { readonly ok: true; readonly generation: Generation; readonly replayed: boolean }
  | { readonly ok: false; readonly error: ReelhaulError };

export interface Page {
  readonly generations: readonly Generation[];
  /** For the next page; null when there is none. */
  readonly cursor: string | null;
}

export interface WaitOptions {
  /** Milliseconds; default: no limit. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Called whenever state or progress changed, first with what is. */
  readonly onProgress?: (generation: Generation) => void;
}

/** What an operator can say about an unconfirmed generation. */
export type Decision =
  /** This is its task: follow it. */
  | { readonly adopt: string }
  /** Submit again and accept that it may be billed twice. */
  | { readonly resubmit: true }
  /** Fail it as `submission_unconfirmed`; a late callback still revives it. */
  | { readonly giveUp: true };

export interface DeadNotifications {
  readonly notifications: readonly Notification[];
  /** Of how many generations there are some. */
  readonly generations: number;
  /** For the next page; null when there is none. */
  readonly cursor: string | null;
}

export interface CancelResult {
  readonly generation: Generation;
  /** Canceling stops reelhaul, not the provider: whether the task may be billed all the same. */
  readonly mayBeBilled: boolean;
}

export interface Reelhaul {
  /**
   * Records a wanted video and queues its submit. With an idempotency key that is known, the generation of then.
   * @throws InvalidInputError naming every problem; IdempotencyConflictError. Nothing is stored in either case.
   */
  enqueue(request: GenerationRequestInput, options?: EnqueueOptionsInput): Promise<Generation>;
  /**
   * Many at once, in few round trips. Each item is stored whole or not at all, and has its own result, in order; one
   * that is refused does not hinder the others.
   */
  enqueueMany(items: readonly EnqueueItem[]): Promise<EnqueueResult[]>;
  /** @throws NotFoundError */
  get(generationId: string): Promise<Generation>;
  /** Newest first; the cost of a page does not depend on how many there are. */
  list(query?: ListQuery): Promise<Page>;
  /** The decisive raw answers of the provider, oldest first: the last twelve. @throws NotFoundError */
  answers(generationId: string): Promise<RawAnswer[]>;
  /**
   * Resolves when the generation is over (also when it already was), with whatever end it took.
   * @throws NotFoundError, WaitTimeoutError, or the signal's reason.
   */
  waitFor(generationId: string, options?: WaitOptions): Promise<Generation>;
  /**
   * What happens, as it happens. A cursor goes on behind the event it came from, as long as the bounded stream (the
   * last 10,000 or so) still holds it. @throws InvalidInputError for a cursor that is none
   */
  events(filter?: EventFilter): AsyncIterable<GenerationEvent>;
  /**
   * A link to a stored asset that works without credentials for `expiresInSeconds` (default an hour).
   * @throws NotFoundError; StateConflictError when there is no such asset, or the storage gives no links
   */
  getAssetUrl(
    generationId: string,
    asset: AssetName,
    options?: { expiresInSeconds?: number },
  ): Promise<string>;
  /** Stops a generation that is not over. @throws NotFoundError, StateConflictError */
  cancel(generationId: string): Promise<CancelResult>;
  /**
   * Starts again at the stage that failed. Poll and archive never bill. A task that the provider failed, and a submit
   * that may have been accepted, are submitted anew only with `allowRebill`.
   * @throws NotFoundError, StateConflictError, RebillNotAllowedError
   */
  retry(generationId: string, options?: { allowRebill?: boolean }): Promise<Generation>;
  /** Settles an unconfirmed generation. @throws NotFoundError, StateConflictError */
  decide(generationId: string, decision: Decision): Promise<Generation>;
  /** What was not told to the app yet, or was given up, oldest first. @throws NotFoundError */
  notifications(generationId: string): Promise<Notification[]>;
  /** Generations with notifications that were given up, newest first: the inbox of an operator. */
  deadNotifications(query?: { limit?: number; cursor?: string }): Promise<DeadNotifications>;
  /**
   * Sends the dead notifications of a generation again, under their old ids and with all their tries before them.
   * @returns how many. @throws NotFoundError
   */
  retryNotification(generationId: string): Promise<number>;
  /** How many generations are in each of these states. */
  count(states: readonly State[]): Promise<Record<string, number>>;
  close(): Promise<void>;
}

/** Written with a decision, to know it again. */
type Mark = { readonly decision: string };

interface Created {
  readonly generation: Generation;
  readonly replayed: boolean;
  /** The job it needs; null when it has moved on already. */
  readonly reminder: Reminder | null;
}

/** Redis failed in the middle of an enqueue: nobody can know whether it was written. */
function unknownOutcome(error: unknown): RedisUnusableError {
  const reason = error instanceof Error ? error.message : String(error);
  return new RedisUnusableError(
    `Redis failed (${reason}), and it is not known whether the generation was stored. Enqueue it again with an idempotencyKey.`,
    { cause: error },
  );
}

/** Fields as a hash would give them back. */
function storedForm(fields: FieldPatch): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => (value === null ? [] : [[name, String(value)]])),
  );
}

/** The same request gives the same digest whatever the order of its keys. */
function digestOf(request: unknown): string {
  const canonical = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(canonical);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, inner]) => [key, canonical(inner)]),
    );
  };
  return createHash('sha256')
    .update(JSON.stringify(canonical(request)))
    .digest('base64url');
}

/**
 * The library over a hub.
 * @param openReader opens a connection of its own for `waitFor`, once and only when it is first needed.
 * @param closeHub closes what was opened for this library.
 */
export function createReelhaulOn(
  hub: Hub,
  openReader: () => Promise<Redis>,
  closeHub: () => Promise<void>,
): Reelhaul {
  const { store, outbox, queues, now, config } = hub;
  const watch = createFinishWatch(store.keys.events, openReader);

  // An app that only enqueues needs no storage, and loads none.
  let storage: Promise<Storage> | null = null;
  const openedStorage = () =>
    (storage ??= import('./storage/open.js').then(({ openStorage }) => openStorage(config.STORAGE_URL)));

  async function mustGet(generationId: string): Promise<GenerationRecord> {
    const record = await store.get(generationId);
    if (!record) throw new NotFoundError(generationId);
    return record;
  }

  /** Writes the record; the job is the caller's to add. A known idempotency key gives the generation of then. */
  async function create({ request, options }: Order): Promise<Created> {
    const id = uuidv7();
    const createdAt = now();
    const { idempotencyKey, tenant, delayMs, runAt, deadlineMs, metadata, onUnconfirmed, priority } = options;
    const { notifyUrl, notifyOn } = options;
    const startAt = runAt ?? (delayMs === undefined ? null : createdAt + delayMs);
    const warnings = requestWarnings(request);
    const digest = idempotencyKey === undefined ? '' : digestOf(request);
    const fields: FieldPatch = {
      request: JSON.stringify(request),
      idempotencyKey: idempotencyKey ?? null,
      requestDigest: digest === '' ? null : digest,
      metadata: Object.keys(metadata).length > 0 ? JSON.stringify(metadata) : null,
      warnings: warnings.length > 0 ? JSON.stringify(warnings) : null,
      onUnconfirmed: onUnconfirmed ?? null,
      priority: priority ?? null,
      runAt: startAt,
      notifyUrl: notifyUrl ?? null,
      notifyOn: notifyOn ?? null,
      deadlineAt: deadlineMs === undefined ? null : createdAt + deadlineMs,
    };
    const idempotency = idempotencyKey === undefined ? null : { key: idempotencyKey, digest };
    const result = await store
      .create({ id, tenant, createdAt, idempotency, fields })
      .catch((error: unknown) => {
        throw unknownOutcome(error);
      });
    if (result.created) {
      const generation = toGeneration(
        readRecord(id, storedForm({ ...fields, state: 'queued', tenant, createdAt, updatedAt: createdAt })),
      );
      const wait = startAt === null ? 0 : Math.max(0, startAt - createdAt);
      const reminder = { generationId: id, delayMs: wait, ...(priority ? { priority } : {}) };
      return { generation, replayed: false, reminder };
    }
    if (result.digest !== digest)
      throw new IdempotencyConflictError(idempotencyKey ?? '', result.generationId);
    const known = await mustGet(result.generationId);
    // Whoever created it may have died before its job was written; the sweep would only come later.
    const reminder =
      known.state === 'queued' && known.runAt === null
        ? { generationId: known.id, priority: known.priority }
        : null;
    return { generation: toGeneration(known), replayed: true, reminder };
  }

  /**
   * The generations are stored by now and will be billed: that their jobs could not be added is no failure of the
   * enqueue, and the sweep adds them.
   */
  async function remind(reminders: readonly Reminder[]): Promise<void> {
    try {
      await queues.remindMany('submit', reminders);
    } catch (error) {
      hub.log.warn({ err: error, generations: reminders.length }, 'jobs could not be added; the sweep will');
    }
  }

  /** So many records are written before their jobs are added: a crash in between leaves them to the sweep. */
  async function enqueueChunk(items: readonly EnqueueItem[]): Promise<EnqueueResult[]> {
    const created = await Promise.all(
      items.map(async ({ request, ...options }): Promise<Created | ReelhaulError> => {
        try {
          return await create(readOrder(request, options));
        } catch (error) {
          return error instanceof ReelhaulError ? error : unknownOutcome(error);
        }
      }),
    );
    const reminders = created.flatMap((one) =>
      one instanceof ReelhaulError || one.reminder === null ? [] : [one.reminder],
    );
    if (reminders.length > 0) await remind(reminders);
    return created.map((one) =>
      one instanceof ReelhaulError
        ? { ok: false, error: one }
        : { ok: true, generation: one.generation, replayed: one.replayed },
    );
  }

  /**
   * Makes a decision about the generation as it stands. Each decision has a mark of its own that is written with it: a
   * command whose reply was lost is sent again by ioredis, and meets its own mark. What may bill is decided about one
   * round only, never carried over to a later one.
   */
  async function change(
    generationId: string,
    decide: (record: GenerationRecord, mark: Mark) => Promise<boolean>,
    { bills = false } = {},
  ): Promise<Generation> {
    const mark = { decision: randomUUID() };
    let firstRev: number | null = null;
    const found = await settle(
      hub,
      generationId,
      async (record) => {
        if (record.decision === mark.decision) return { settled: true };
        firstRev ??= record.rev;
        if (bills && record.rev !== firstRev) {
          throw new StateConflictError(
            `Generation ${generationId} moved on meanwhile: it is ${record.state}. Look, and decide again.`,
          );
        }
        return (await decide(record, mark)) ? { settled: true } : 'again';
      },
      false,
    );
    if (!found) throw new NotFoundError(generationId);
    return toGeneration(await mustGet(generationId));
  }

  /** Back to the queue for another paid POST; the task of before stays in view, since it was billed or may be. */
  async function resubmit(record: GenerationRecord, mark: Mark): Promise<boolean> {
    const { id, taskId, otherTaskIds } = record;
    const moved = await advance(hub, record, 'queued', {
      set: {
        ...mark,
        taskId: null,
        ...(taskId === null ? {} : { otherTaskIds: JSON.stringify([...otherTaskIds, taskId]) }),
        submitNonce: null,
        submitFailures: null,
        acceptedAt: null,
        unconfirmedAt: null,
        visibleAt: null,
        withoutUrlSince: null,
        progress: null,
        deadlineAt: null,
        urls: null,
      },
      expect: sameTaskIds(record),
      count: ['resubmits'],
    });
    if (moved) await queues.hasten('submit', id, record.priority);
    return moved;
  }

  async function redrive(record: GenerationRecord, allowRebill: boolean, mark: Mark): Promise<boolean> {
    const { id, state, failure, charge, taskId } = record;
    if (state === 'expired') return repoll(record, mark);
    if (state !== 'failed' || !failure) {
      throw new StateConflictError(`Only a failed or expired generation can be retried; ${id} is ${state}.`);
    }
    if (failure.stage === 'archive') {
      const set = { ...mark, archiveFailures: null, linkRefreshed: null };
      const moved = await advance(hub, record, 'archiving', { set });
      if (moved) await queues.hasten('archive', id);
      return moved;
    }
    const mayBillAgain = taskId !== null || failure.code === 'submission_unconfirmed' || charge !== 'none';
    if (failure.stage === 'poll' && !(allowRebill && failure.code === 'task_failed'))
      return repoll(record, mark);
    if (mayBillAgain && !allowRebill) throw new RebillNotAllowedError(id);
    if (mayBillAgain) return resubmit(record, mark);
    const moved = await advance(hub, record, 'queued', {
      set: { ...mark, submitFailures: null, deadlineAt: null },
    });
    if (moved) await queues.hasten('submit', id, record.priority);
    return moved;
  }

  async function repoll(record: GenerationRecord, mark: Mark): Promise<boolean> {
    const deadlineAt = now() + config.GENERATION_DEADLINE_MS;
    const set = { ...mark, withoutUrlSince: null, deadlineAt };
    const moved = await advance(hub, record, 'generating', { set });
    if (moved) await queues.hasten('poll', record.id);
    return moved;
  }

  /** A task that a callback named while the answer was still awaited is noted: it exists, and is billed. */
  async function stop(record: GenerationRecord, mark: Mark): Promise<boolean> {
    const { id, state, hintedTaskId } = record;
    const hinted =
      hintedTaskId === null ? {} : { taskId: hintedTaskId, hintedTaskId: null, charge: 'charged' };
    const moved = await advance(hub, record, 'canceled', {
      set: { ...mark, ...hinted },
      expect: { hintedTaskId: hintedTaskId ?? '' },
    });
    const stage = stageOf(state);
    if (moved && stage !== null) await queues.forget(stage, id);
    return moved;
  }

  return {
    async enqueue(request, options) {
      const { generation, reminder } = await create(readOrder(request, options));
      if (reminder) await remind([reminder]);
      return generation;
    },

    async enqueueMany(items) {
      const results: EnqueueResult[] = [];
      for (let i = 0; i < items.length; i += ENQUEUE_CHUNK) {
        results.push(...(await enqueueChunk(items.slice(i, i + ENQUEUE_CHUNK))));
      }
      return results;
    },

    get: async (generationId) => toGeneration(await mustGet(generationId)),

    async list({ limit = 50, cursor, ...where } = {}) {
      const size = Math.min(Math.max(1, limit), MAX_PAGE);
      const page = await store.list({ ...where, limit: size, ...(cursor ? { before: cursor } : {}) });
      const records = await Promise.all(page.ids.map((id) => store.get(id)));
      return {
        generations: records.flatMap((record) => (record ? [toGeneration(record)] : [])),
        cursor: page.cursor,
      };
    },

    async answers(generationId) {
      await mustGet(generationId);
      return store.answers(generationId);
    },

    async waitFor(generationId, { timeoutMs, signal, onProgress } = {}) {
      signal?.throwIfAborted();
      // Listening starts before the first look, so that no finish falls between the two.
      const wait = await watch.open(generationId);
      try {
        const deadline = timeoutMs === undefined ? null : now() + timeoutMs;
        let shown = '';
        for (;;) {
          const record = await mustGet(generationId);
          const { state, progress } = record;
          if (onProgress && shown !== `${state} ${progress}`) {
            shown = `${state} ${progress}`;
            onProgress(toGeneration(record));
          }
          if (isTerminal(record.state)) return toGeneration(record);
          const leftMs = deadline === null ? null : deadline - now();
          if (leftMs !== null && leftMs <= 0) throw new WaitTimeoutError(generationId, timeoutMs!);
          await wait.next({ timeoutMs: leftMs, signal });
        }
      } finally {
        wait.close();
      }
    },

    async *events(filter = {}) {
      if (filter.cursor !== undefined && !isCursor(filter.cursor)) {
        const message = `expected the cursor of an event, got ${JSON.stringify(filter.cursor)}`;
        throw new InvalidInputError('The events cannot be read', [{ path: 'cursor', message }]);
      }
      filter.signal?.throwIfAborted();
      yield* readEvents(await openReader(), store.keys.events, filter);
    },

    async getAssetUrl(generationId, name, { expiresInSeconds = DEFAULT_LINK_SECONDS } = {}) {
      const { assets } = await mustGet(generationId);
      const asset = assets?.[name];
      if (!asset) throw new StateConflictError(`Generation ${generationId} has no ${name} in storage.`);
      const link = await (await openedStorage()).urlFor?.(asset.key, { expiresInSeconds });
      if (link === undefined) {
        throw new StateConflictError(
          'Files on a local disk have no links of their own: the HTTP API serves them.',
        );
      }
      return link;
    },

    async cancel(generationId) {
      const generation = await change(generationId, (record, mark) => {
        if (record.state === 'canceled') return Promise.resolve(true);
        if (isTerminal(record.state) && record.state !== 'expired') {
          throw new StateConflictError(`Generation ${generationId} is over already: ${record.state}.`);
        }
        return stop(record, mark);
      });
      return { generation, mayBeBilled: generation.charge === 'possible' || generation.charge === 'charged' };
    },

    retry: (generationId, { allowRebill = false } = {}) =>
      change(generationId, (record, mark) => redrive(record, allowRebill, mark), { bills: true }),

    async decide(generationId, decision) {
      if ('adopt' in decision) {
        const { state } = await mustGet(generationId);
        if (state !== 'unconfirmed' && state !== 'failed') {
          throw new StateConflictError(
            `Only an unconfirmed generation can adopt a task; ${generationId} is ${state}.`,
          );
        }
        await adoptTask(hub, generationId, decision.adopt, { source: 'operator' });
        return toGeneration(await mustGet(generationId));
      }
      const bills = 'resubmit' in decision;
      const settleIt = async (record: GenerationRecord, mark: Mark) => {
        if (record.state !== 'unconfirmed') {
          throw new StateConflictError(
            `Only an unconfirmed generation is to be decided; ${generationId} is ${record.state}.`,
          );
        }
        if (bills) return resubmit(record, mark);
        const message = 'An operator gave it up: it is not known whether the provider accepted the request.';
        const failure = {
          code: 'submission_unconfirmed',
          message,
          stage: 'submit',
          retryable: true,
          charge: 'possible',
        } as const;
        return fail(hub, record, failure, { set: mark });
      };
      return change(generationId, settleIt, { bills });
    },

    async notifications(generationId) {
      await mustGet(generationId);
      const [dead, due] = await Promise.all([outbox.dead(generationId), outbox.due(generationId)]);
      return [...dead, ...due.map(withoutContent)];
    },

    async deadNotifications({ limit = 50, cursor } = {}) {
      const size = Math.min(Math.max(1, limit), MAX_PAGE);
      const [ids, generations] = await Promise.all([
        outbox.deadIds(cursor ?? null, size),
        outbox.countDead(),
      ]);
      const notifications = (await Promise.all(ids.map((id) => outbox.dead(id)))).flat();
      return { notifications, generations, cursor: ids.length === size ? (ids.at(-1) ?? null) : null };
    },

    async retryNotification(generationId) {
      await mustGet(generationId);
      const moved = await outbox.redrive(generationId);
      if (moved > 0) await hastenNotification(hub, generationId);
      return moved;
    },

    count: (states) => store.countByState(states),

    async close() {
      await watch.close();
      await (await storage)?.close();
      await queues.close();
      await closeHub();
    },
  };
}
