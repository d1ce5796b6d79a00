/**
 * The producer's library: enqueue generations, look at them, wait for them, decide about them. It needs nothing but
 * Redis and carries no worker code.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { v7 as uuidv7 } from 'uuid';
import type { Hub } from './hub.js';
import {
  IdempotencyConflictError,
  NotFoundError,
  RebillNotAllowedError,
  StateConflictError,
  WaitTimeoutError,
} from './errors.js';
import { createFinishWatch } from './generation/finishes.js';
import { readOrder, type EnqueueOptionsInput, type Order } from './generation/options.js';
import { toGeneration, type Generation, type GenerationRecord } from './generation/record.js';
import { requestWarnings, type GenerationRequestInput } from './generation/request.js';
import { isTerminal, type State } from './generation/states.js';
import { adoptTask, advance, fail, settle } from './pipeline.js';
import type { RawAnswer } from './provider/outcomes.js';

const MAX_PAGE = 500;

export interface ListQuery {
  readonly state?: State;
  /** Default 50, at most 500. */
  readonly limit?: number;
  /** The `cursor` of the page before. */
  readonly cursor?: string;
}

export interface Page {
  readonly generations: readonly Generation[];
  /** For the next page; null when there is none. */
  readonly cursor: string | null;
}

export interface WaitOptions {
  /** Milliseconds; default: no limit. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** What an operator can say about an unconfirmed generation. */
export type Decision =
  /** This is its task: follow it. */
  | { readonly adopt: string }
  /** Submit again and accept that it may be billed twice. */
  | { readonly resubmit: true }
  /** Fail it as `submission_unconfirmed`; a late callback still revives it. */
  | { readonly giveUp: true };

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
  /** How many generations are in each of these states. */
  count(states: readonly State[]): Promise<Record<string, number>>;
  close(): Promise<void>;
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
  const { store, queues, now, config } = hub;
  const watch = createFinishWatch(store.keys.events, openReader);

  async function mustGet(generationId: string): Promise<GenerationRecord> {
    const record = await store.get(generationId);
    if (!record) throw new NotFoundError(generationId);
    return record;
  }

  async function create({ request, options }: Order): Promise<Generation> {
    const id = uuidv7();
    const createdAt = now();
    const { idempotencyKey, tenant, delayMs, runAt, deadlineMs, metadata, onUnconfirmed, priority } = options;
    const startAt = runAt ?? (delayMs === undefined ? null : createdAt + delayMs);
    const warnings = requestWarnings(request);
    const result = await store.create({
      id,
      tenant,
      createdAt,
      idempotency: idempotencyKey === undefined ? null : { key: idempotencyKey, digest: digestOf(request) },
      fields: {
        request: JSON.stringify(request),
        idempotencyKey: idempotencyKey ?? null,
        metadata: Object.keys(metadata).length > 0 ? JSON.stringify(metadata) : null,
        warnings: warnings.length > 0 ? JSON.stringify(warnings) : null,
        onUnconfirmed: onUnconfirmed ?? null,
        priority: priority ?? null,
        runAt: startAt,
        deadlineAt: deadlineMs === undefined ? null : createdAt + deadlineMs,
      },
    });
    const generationId = result.created ? id : result.generationId;
    if (!result.created && result.digest !== digestOf(request)) {
      throw new IdempotencyConflictError(idempotencyKey ?? '', generationId);
    }
    if (result.created) {
      const wait = startAt === null ? 0 : Math.max(0, startAt - createdAt);
      await queues.remind('submit', { generationId, delayMs: wait, ...(priority ? { priority } : {}) });
    }
    return toGeneration(await mustGet(generationId));
  }

  /** Decides from the record as it stands until the change fits, then shows the generation. */
  async function change(
    generationId: string,
    decide: (record: GenerationRecord) => Promise<boolean>,
  ): Promise<Generation> {
    const found = await settle(
      hub,
      generationId,
      async (record) => ((await decide(record)) ? { settled: true } : 'again'),
      false,
    );
    if (!found) throw new NotFoundError(generationId);
    return toGeneration(await mustGet(generationId));
  }

  /** Back to the queue for another paid POST; the task of before stays in view, since it was billed or may be. */
  async function resubmit(record: GenerationRecord): Promise<boolean> {
    const { id, taskId, otherTaskIds } = record;
    const moved = await advance(hub, record, 'queued', {
      set: {
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
      count: ['resubmits'],
    });
    if (moved) await queues.hasten('submit', id);
    return moved;
  }

  async function redrive(record: GenerationRecord, allowRebill: boolean): Promise<boolean> {
    const { id, state, failure, charge, taskId } = record;
    if (state === 'expired') return repoll(record);
    if (state !== 'failed' || !failure) {
      throw new StateConflictError(`Only a failed or expired generation can be retried; ${id} is ${state}.`);
    }
    if (failure.stage === 'archive') {
      const moved = await advance(hub, record, 'archiving', {
        set: { archiveFailures: null, linkRefreshed: null },
      });
      if (moved) await queues.hasten('archive', id);
      return moved;
    }
    const mayBillAgain = taskId !== null || failure.code === 'submission_unconfirmed' || charge !== 'none';
    if (failure.stage === 'poll' && !(allowRebill && failure.code === 'task_failed')) return repoll(record);
    if (mayBillAgain && !allowRebill) throw new RebillNotAllowedError(id);
    if (mayBillAgain) return resubmit(record);
    const moved = await advance(hub, record, 'queued', { set: { submitFailures: null, deadlineAt: null } });
    if (moved) await queues.hasten('submit', id);
    return moved;
  }

  async function repoll(record: GenerationRecord): Promise<boolean> {
    const deadlineAt = now() + config.GENERATION_DEADLINE_MS;
    const moved = await advance(hub, record, 'generating', { set: { withoutUrlSince: null, deadlineAt } });
    if (moved) await queues.hasten('poll', record.id);
    return moved;
  }

  return {
    enqueue: async (request, options) => create(readOrder(request, options)),

    get: async (generationId) => toGeneration(await mustGet(generationId)),

    async list({ state, limit = 50, cursor } = {}) {
      const page = await store.list({
        limit: Math.min(Math.max(1, limit), MAX_PAGE),
        ...(state ? { state } : {}),
        ...(cursor ? { before: cursor } : {}),
      });
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

    async waitFor(generationId, { timeoutMs, signal } = {}) {
      signal?.throwIfAborted();
      // Listening starts before the first look, so that no finish falls between the two.
      const wait = await watch.open(generationId);
      try {
        const deadline = timeoutMs === undefined ? null : now() + timeoutMs;
        for (;;) {
          const record = await mustGet(generationId);
          if (isTerminal(record.state)) return toGeneration(record);
          const leftMs = deadline === null ? null : deadline - now();
          if (leftMs !== null && leftMs <= 0) throw new WaitTimeoutError(generationId, timeoutMs!);
          await wait.next({ timeoutMs: leftMs, signal });
        }
      } finally {
        wait.close();
      }
    },

    async cancel(generationId) {
      const generation = await change(generationId, (record) => {
        if (record.state === 'canceled') return Promise.resolve(true);
        if (isTerminal(record.state) && record.state !== 'expired') {
          throw new StateConflictError(`Generation ${generationId} is over already: ${record.state}.`);
        }
        return advance(hub, record, 'canceled');
      });
      return { generation, mayBeBilled: generation.charge === 'possible' || generation.charge === 'charged' };
    },

    retry: (generationId, { allowRebill = false } = {}) =>
      change(generationId, (record) => redrive(record, allowRebill)),

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
      return change(generationId, async (record) => {
        if (record.state !== 'unconfirmed') {
          throw new StateConflictError(
            `Only an unconfirmed generation is to be decided; ${generationId} is ${record.state}.`,
          );
        }
        if ('resubmit' in decision) return resubmit(record);
        const message = 'An operator gave it up: it is not known whether the provider accepted the request.';
        const failure = {
          code: 'submission_unconfirmed',
          message,
          stage: 'submit',
          retryable: true,
          charge: 'possible',
        } as const;
        return fail(hub, record, failure);
      });
    },

    count: (states) => store.countByState(states),

    async close() {
      await watch.close();
      await queues.close();
      await closeHub();
    },
  };
}
