/**
 * Enqueue: checks an order, writes its record and adds its submit job. It promises that an item is stored whole or not at
 * all, and that nothing which is stored is told as an error: it would be ordered again, and be billed twice.
 */
import { createHash } from 'node:crypto';
import {
  IdempotencyConflictError,
  InvalidInputError,
  RedisAwayError,
  RedisUnusableError,
  ReelhaulError,
  WritesRefusedError,
} from '../errors.js';
import { hasBudget } from '../limits/settings.js';
import { priceOf, unknownPrice } from '../generation/price.js';
import { createdAtOf } from '../store/listing.js';
import { readOrder, type EnqueueOptionsInput, type Order } from '../generation/options.js';
import { toGeneration, type FieldPatch, type Generation } from '../generation/record.js';
import { readRecord } from '../store/read-record.js';
import { canonical, ignoredOptions, type IgnoredOption } from '../generation/ignored.js';
import {
  requestWarnings,
  type GenerationRequest,
  type GenerationRequestInput,
} from '../generation/request.js';
import type { Hub } from './context.js';
import { discardAll, prepareInputs, type PreparedOrder } from './inputs.js';
import { generationsBefore, inputsOf, uploadsIn, type WrittenInput } from '../generation/inputs.js';
import { mustGet } from './advance.js';
import { priorityOf } from '../store/queued-lua.js';
import type { Reminder } from '../queue/queues.js';
import { unlessRefused } from '../redis/write-errors.js';

/** A generation that waits for another one looks for itself after this time at most. */
export const CHAINED_MS = 600_000;
/** The most records that are written at once. */
const ENQUEUE_CHUNK = 500;

/** One of many: a request with its options beside it. */
export type EnqueueItem = EnqueueOptionsInput & { readonly request: GenerationRequestInput };

/** `ignored`: its idempotency key was known, and these options differ from the ones of then, which stay. */
export type Enqueued = Generation & { readonly ignored?: readonly IgnoredOption[] };

/** What became of one item; `replayed` when its idempotency key was known. */
export type EnqueueResult =
  | {
      readonly ok: true;
      readonly generation: Generation;
      readonly replayed: boolean;
      /** Options that differ from the ones of then, which stay. */
      readonly ignored: readonly IgnoredOption[];
    }
  | { readonly ok: false; readonly error: ReelhaulError };

interface Created {
  readonly generation: Generation;
  readonly replayed: boolean;
  readonly ignored: readonly IgnoredOption[];
  readonly reminder: Reminder | null;
}

/** Redis failed in the middle of an enqueue: it is not known whether it was written. */
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
  return createHash('sha256')
    .update(JSON.stringify(canonical(request)))
    .digest('base64url');
}

/** Under a budget a request without a price would only fail later. Workers that know other prices judge again. */
function checkPrice({ config }: Hub, { request, options }: Order): void {
  if (config.UNKNOWN_PRICE === 'allow' || !hasBudget(config, options.tenant)) return;
  if (priceOf(request, config.PRICES) !== null) return;
  throw new InvalidInputError('The generation was not enqueued', [
    { path: 'request.model', message: `expected one with a price: ${unknownPrice(request)}` },
  ]);
}

/**
 * Writes the record. A known idempotency key gives the generation of then. `reminder`: the submit job that it needs, unless
 * it was known.
 */
async function create(hub: Hub, order: Order): Promise<Created> {
  checkPrice(hub, order);
  const prepared = await prepareInputs(hub, order);
  try {
    const created = await write(hub, order, prepared);
    if (created.replayed) await discardAll(hub, prepared.added);
    return created;
  } catch (error) {
    // Where it is not known, the record may name them.
    if (!(error instanceof RedisUnusableError) || error instanceof RedisAwayError)
      await discardAll(hub, prepared.added);
    throw error;
  }
}

async function write(
  hub: Hub,
  { options, request: ordered }: Order,
  { request, asWritten }: PreparedOrder,
): Promise<Created> {
  const id = hub.newGenerationId();
  // The instant that lists are ordered by: a second read of the clock could be a millisecond later.
  const createdAt = createdAtOf(id);
  const { idempotencyKey, tenant, delayMs, runAt, deadlineMs, metadata, onUnconfirmed, priority } = options;
  const { notifyUrl, notifyOn } = options;
  const startAt = runAt ?? (delayMs === undefined ? null : createdAt + delayMs);
  const warnings = requestWarnings(request);
  const digest = idempotencyKey === undefined ? '' : digestOf(asWritten);
  const [uploads, after] = [uploadsIn(request), generationsBefore(request)];
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
    traceparent: hub.activeTrace(),
    deadlineAt: deadlineMs === undefined ? null : createdAt + deadlineMs,
    inputs: uploads.join(' ') || null,
    after: after.join(' ') || null,
  };
  const idempotency = idempotencyKey === undefined ? null : { key: idempotencyKey, digest };
  const result = await unlessRefused(
    hub.redis,
    () => hub.store.create({ id, tenant, createdAt, idempotency, fields, uploads, after }),
    async () =>
      (await hub.store.get(id)) ? ({ created: true, turn: null, waitMs: 0, waitsFor: [] } as const) : null,
  ).catch((error: unknown) => {
    throw error instanceof WritesRefusedError || error instanceof RedisAwayError
      ? error
      : unknownOutcome(error);
  });
  if (result.created) {
    hub.log.info({ generationId: id, tenant, to: 'queued' }, 'generation enqueued');
    hub.work.tell({ kind: 'created', generationId: id, at: createdAt });
    const waitsFor = result.waitsFor.join(' ') || null;
    const generation = toGeneration(
      readRecord(
        id,
        storedForm({ ...fields, waitsFor, state: 'queued', tenant, createdAt, updatedAt: createdAt }),
      ),
    );
    // The end of the other one brings it forward.
    const delayMs = waitsFor === null ? result.waitMs : Math.max(result.waitMs, CHAINED_MS);
    const reminder = { generationId: id, delayMs, priority: priorityOf(result.turn) };
    return { generation, replayed: false, ignored: [], reminder };
  }
  if ('missing' in result) throw unknownReference(ordered, request, result.id);
  if (result.digest !== digest) throw new IdempotencyConflictError(idempotencyKey ?? '', result.generationId);
  const record = await mustGet(hub, result.generationId);
  const ignored = ignoredOptions(record, options);
  return { generation: toGeneration(record), replayed: true, ignored, reminder: null };
}

/** A generation of another tenant counts as missing. */
function unknownReference(
  ordered: Order['request'],
  request: GenerationRequest,
  id: string,
): InvalidInputError {
  const found = inputsOf(request).find(({ input }) => Object.values(input).includes(id));
  const field = found?.field ?? 'image';
  const written: WrittenInput = ordered[field] ?? id;
  const message = `expected an upload or a generation that exists, got ${JSON.stringify(written).slice(0, 200)}`;
  return new InvalidInputError('The generation was not enqueued', [{ path: `request.${field}`, message }]);
}

/** What is stored is not told as an error: when a job cannot be added, the sweep adds it. */
async function remind(hub: Hub, reminders: readonly Reminder[]): Promise<void> {
  try {
    await hub.queues.remindMany('submit', reminders);
  } catch (error) {
    hub.log.warn(
      { err: error, jobs: reminders.length },
      'submit jobs could not be added; the sweep adds them',
    );
  }
}

async function enqueueChunk(hub: Hub, items: readonly EnqueueItem[]): Promise<EnqueueResult[]> {
  const byKey = new Map<string, Promise<unknown>>();
  const nameOf = (tenant: string, key: string) => `${tenant.length} ${tenant} ${key}`;
  const createOne = async ({ request, options }: Order): Promise<Created> => {
    // What it starts from may be an item before it.
    for (const { input } of inputsOf(request))
      if (typeof input === 'object' && 'generationKey' in input)
        await byKey.get(nameOf(options.tenant, input.generationKey));
    return create(hub, { request, options });
  };
  const created = await Promise.all(
    items.map(({ request, ...options }): Promise<Created | ReelhaulError> => {
      const asError = (error: unknown) => (error instanceof ReelhaulError ? error : unknownOutcome(error));
      try {
        const order = readOrder(request, options, hub.now());
        const { tenant, idempotencyKey } = order.options;
        const creating = createOne(order).catch(asError);
        if (idempotencyKey !== undefined) byKey.set(nameOf(tenant, idempotencyKey), creating);
        return creating;
      } catch (error) {
        return Promise.resolve(asError(error));
      }
    }),
  );
  await remind(
    hub,
    created.flatMap((one) => (one instanceof ReelhaulError || one.reminder === null ? [] : [one.reminder])),
  );
  return created.map((one) =>
    one instanceof ReelhaulError
      ? { ok: false, error: one }
      : { ok: true, generation: one.generation, replayed: one.replayed, ignored: one.ignored },
  );
}

/**
 * @throws InvalidInputError, IdempotencyConflictError, WritesRefusedError: nothing is stored. RedisUnusableError: nobody
 * can know.
 */
export async function enqueue(
  hub: Hub,
  request: GenerationRequestInput,
  options?: EnqueueOptionsInput,
): Promise<Enqueued> {
  const { generation, ignored, reminder } = await create(hub, readOrder(request, options, hub.now()));
  if (reminder) await remind(hub, [reminder]);
  return ignored.length === 0 ? generation : { ...generation, ignored };
}

/** Each item has its own result, in order. */
export async function enqueueMany(hub: Hub, items: readonly EnqueueItem[]): Promise<EnqueueResult[]> {
  const results: EnqueueResult[] = [];
  for (let i = 0; i < items.length; i += ENQUEUE_CHUNK) {
    results.push(...(await enqueueChunk(hub, items.slice(i, i + ENQUEUE_CHUNK))));
  }
  return results;
}
