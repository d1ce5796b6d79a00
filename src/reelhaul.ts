/**
 * The producer's library: enqueue generations, look at them, wait for them, decide about them. It needs nothing but
 * Redis and carries no worker code.
 */
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pino, type Logger } from 'pino';
import { readConfig, type Config } from './config/config.js';
import { clockOf, createHub, type Hub } from './pipeline/context.js';
import { openClock, type RedisClock } from './redis/clock.js';
import { checkRedis } from './redis/check.js';
import { connectRedis, duplicatePatiently, type RedisConnection } from './redis/connect.js';
import { checkLayout } from './redis/layout.js';
import { openActiveTrace } from './telemetry/active-trace.js';
import { startFigures } from './telemetry/time-series.js';
import { erase, eraseTenant, type EraseOptions, type TenantErased } from './pipeline/erase.js';
import type { Erased } from './store/erase.js';
import { outlook, type Outlook } from './pipeline/outlook.js';
import { cancel, decide, retry, type CancelResult, type Decision } from './pipeline/operations.js';
import {
  enqueue,
  enqueueMany,
  type Enqueued,
  type EnqueueItem,
  type EnqueueResult,
} from './pipeline/enqueue.js';
import { InvalidInputError, NewerRecordError, StateConflictError, WaitTimeoutError } from './errors.js';
import type { EventFilter, GenerationEvent } from './store/event-stream.js';
import { readLimits, resume, type LimitsOverview } from './limits/overview.js';
import { readSpend, type Spend } from './limits/spend.js';
import type { EnqueueOptionsInput } from './generation/options.js';
import { withoutContent, type Notification } from './store/outbox.js';
import { ID } from './generation/id.js';
import { toGeneration, type Generation, type GenerationRecord, type RawAnswer } from './generation/record.js';
import type { GenerationRequestInput } from './generation/request.js';
import { isTerminal, type State } from './generation/states.js';
import { hastenNotification, mustGet } from './pipeline/advance.js';
import { addPicture } from './pipeline/inputs.js';
import type { StoredInput } from './store/inputs.js';
import type { AssetName } from './storage/paths.js';
import { createSignedLink } from './storage/signed-link.js';

export type { CancelResult, Decision } from './pipeline/operations.js';
export type { EraseOptions, TenantErased } from './pipeline/erase.js';
export type { Erased } from './store/erase.js';
export type { Outlook, Wait, WaitCode } from './pipeline/outlook.js';
export type { Enqueued, EnqueueItem, EnqueueResult } from './pipeline/enqueue.js';
export type { StoredInput } from './store/inputs.js';
export type { LimitsOverview } from './limits/overview.js';
export type { Spend } from './limits/spend.js';

const MAX_PAGE = 500;
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

export interface Page {
  readonly generations: readonly Generation[];
  /** For the next page; null when there is none. */
  readonly cursor: string | null;
}

export interface WaitOptions {
  /** Milliseconds; default: no limit. The generation goes on when it is over. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Called at once, and whenever state or progress changed. */
  readonly onProgress?: (generation: Generation) => void;
}

export interface DeadNotifications {
  readonly notifications: readonly Notification[];
  /** Of how many generations there are some. */
  readonly generations: number;
  /** For the next page; null when there is none. */
  readonly cursor: string | null;
}

export interface Reelhaul {
  /**
   * Records a generation and queues its submit. With a known idempotency key it gives the generation that has this key;
   * `ignored` then names the options that differ and stay as they were.
   * @throws InvalidInputError naming every problem; IdempotencyConflictError; WritesRefusedError. Nothing is stored in
   * any of these cases.
   */
  enqueue(request: GenerationRequestInput, options?: EnqueueOptionsInput): Promise<Enqueued>;
  /**
   * Many at once, in few round trips. Each item is stored whole or not at all, and has its own result, in order: one
   * that is refused stops no other.
   */
  enqueueMany(items: readonly EnqueueItem[]): Promise<EnqueueResult[]>;
  /**
   * Stores a picture that generations of the tenant (default `default`) can start from: `{ image: { input: id } }`. A text is
   * the path of a file. The same bytes are stored once. It is kept while a generation names it, and for a day before.
   * @throws InvalidInputError when it is no whole PNG, JPEG or WebP of at most 16 MB and 8,000 pixels a side; StorageError
   */
  addInput(source: Readable | Uint8Array | string, options?: { tenant?: string }): Promise<StoredInput>;
  /** One generation. @throws NotFoundError */
  get(generationId: string): Promise<Generation>;
  /** Why it waits, how many are before it, and when its task is asked about next. @throws NotFoundError */
  outlook(generationId: string): Promise<Outlook>;
  /** Newest first. The cost of a page does not depend on how many generations there are. */
  list(query?: ListQuery): Promise<Page>;
  /** What the provider said that decided something, oldest first: the last twelve answers. @throws NotFoundError */
  answers(generationId: string): Promise<RawAnswer[]>;
  /**
   * Resolves when the generation is over: `succeeded`, `failed`, `expired` or `canceled`; at once when it is already.
   * `unconfirmed` is not over, and may last: give a `timeoutMs`.
   * @throws NotFoundError, WaitTimeoutError, or the signal's reason.
   */
  waitFor(generationId: string, options?: WaitOptions): Promise<Generation>;
  /**
   * Each event as it happens, until the signal aborts. With a cursor it goes on after the event of that cursor, as long as the
   * stream (about the last 10,000 events) still holds it. @throws InvalidInputError for a text that is no cursor
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
  /**
   * Stops a generation that is not over. The provider has no cancel: its task may be billed all the same (`mayBeBilled`).
   * @throws NotFoundError, StateConflictError
   */
  cancel(generationId: string): Promise<CancelResult>;
  /**
   * Starts again at the stage that failed. Poll and archive never bill. A task that the provider failed, and a submit
   * that may have been accepted, are submitted anew only with `allowRebill`.
   * @throws NotFoundError, StateConflictError, RebillNotAllowedError
   */
  retry(generationId: string, options?: { allowRebill?: boolean }): Promise<Generation>;
  /** Settles an unconfirmed generation: adopt its task, submit again, or give up. @throws NotFoundError, StateConflictError */
  decide(generationId: string, decision: Decision): Promise<Generation>;
  /**
   * Erases a generation: record, answers, events, notifications, files and manifest. A stub with its instants and bills stays
   * until `RETENTION_MS`; its idempotency key is free again. The files are removed by a worker, at once if one runs
   * (`filesErased`). Repeat it as often as you like.
   * @throws NotFoundError; MayBeBilledError unless `evenIfBilled`, while its task may live
   */
  erase(generationId: string, options?: EraseOptions): Promise<Erased>;
  /**
   * Erases all generations of a tenant, and its name from the spend by tenant. Stop enqueuing for it first. What may still be
   * billed is kept unless `evenIfBilled`.
   */
  eraseTenant(tenant: string, options?: EraseOptions): Promise<TenantErased>;
  /** Notifications that are not delivered yet or were given up, oldest first. @throws NotFoundError */
  notifications(generationId: string): Promise<Notification[]>;
  /** Notifications that were given up, those of the newest generation first. */
  deadNotifications(query?: { limit?: number; cursor?: string }): Promise<DeadNotifications>;
  /**
   * Sends the notifications of a generation that were given up again. Each keeps its id, and has all its tries again.
   * @returns how many. @throws NotFoundError
   */
  retryNotification(generationId: string): Promise<number>;
  /** Caps and rates with their use, and what holds calls to the provider. */
  limits(): Promise<LimitsOverview>;
  /**
   * An operator says that key and provider work again: nothing waits for a probe, a 429 or the next day's budget any longer.
   * Caps and budgets go on to hold.
   */
  resume(): Promise<void>;
  /**
   * What was spent on a day (UTC, `YYYY-MM-DD`; default: today), by tenant.
   * @throws InvalidInputError for a text that is no day
   */
  spend(query?: { day?: string; tenant?: string }): Promise<Spend>;
  /** How many generations are in each of these states. */
  count(states: readonly State[]): Promise<Record<string, number>>;
  /** Closes the connections that this library opened. */
  close(): Promise<void>;
}

/** @throws InvalidInputError */
function checkPage(limit: number, cursor: string | undefined): void {
  const problems = [];
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    problems.push({ path: 'limit', message: `expected a whole number from 1 to ${MAX_PAGE}, got ${limit}` });
  }
  if (cursor !== undefined && !ID.test(cursor)) {
    problems.push({
      path: 'cursor',
      message: `expected the cursor of a page, got ${JSON.stringify(cursor.slice(0, 80))}`,
    });
  }
  if (problems.length > 0) throw new InvalidInputError('The generations cannot be listed', problems);
}

/**
 * The library over a hub.
 * @param openReader opens a connection of its own for `waitFor`, once and only when it is first needed.
 * @param closeHub closes what was opened for this library.
 */
export function createReelhaulOn(
  hub: Hub,
  openReader: () => Promise<RedisConnection>,
  closeHub: () => Promise<void>,
): Reelhaul {
  const { store, outbox, queues, now, config } = hub;
  const watch = hub.events.watch(openReader);

  return {
    enqueue: (request, options) => enqueue(hub, request, options),

    enqueueMany: (items) => enqueueMany(hub, items),

    async addInput(source, { tenant = 'default' } = {}) {
      const bytes =
        typeof source === 'string'
          ? createReadStream(source)
          : source instanceof Uint8Array
            ? Readable.from([Buffer.from(source)])
            : source;
      return (await addPicture(hub, tenant, bytes)).input;
    },

    get: async (generationId) => toGeneration(await mustGet(hub, generationId)),

    outlook: (generationId) => outlook(hub, generationId),

    async list({ limit = 50, cursor, ...where } = {}) {
      checkPage(limit, cursor);
      const page = await store.list({ ...where, limit, ...(cursor ? { before: cursor } : {}) });
      const records = await Promise.all(page.ids.map((id) => readable(hub, id)));
      return {
        generations: records.flatMap((record) => (record ? [toGeneration(record)] : [])),
        cursor: page.cursor,
      };
    },

    async answers(generationId) {
      await mustGet(hub, generationId);
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
          const record = await mustGet(hub, generationId);
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
      if (filter.cursor !== undefined && !hub.events.isCursor(filter.cursor)) {
        const message = `expected the cursor of an event, got ${JSON.stringify(filter.cursor)}`;
        throw new InvalidInputError('The events cannot be read', [{ path: 'cursor', message }]);
      }
      filter.signal?.throwIfAborted();
      yield* hub.events.read(openReader, filter);
    },

    async getAssetUrl(generationId, name, { expiresInSeconds = DEFAULT_LINK_SECONDS } = {}) {
      const { assets } = await mustGet(hub, generationId);
      const asset = assets?.[name];
      if (!asset) throw new StateConflictError(`Generation ${generationId} has no ${name} in storage.`);
      const link = await (await hub.openedStorage()).urlFor?.(asset.key, { expiresInSeconds });
      if (link !== undefined) return link;
      const { PUBLIC_URL, CALLBACK_SECRET } = config;
      if (PUBLIC_URL === '') {
        throw new StateConflictError(
          'A file on a local disk is linked to only with PUBLIC_URL and CALLBACK_SECRET: the HTTP server serves it.',
        );
      }
      const expiresAt = now() + expiresInSeconds * 1000;
      return createSignedLink(PUBLIC_URL, CALLBACK_SECRET[0] ?? '', { generationId, name, expiresAt });
    },

    cancel: (generationId) => cancel(hub, generationId),

    retry: (generationId, { allowRebill = false } = {}) => retry(hub, generationId, allowRebill),

    decide: (generationId, decision) => decide(hub, generationId, decision),

    erase: (generationId, options) => erase(hub, generationId, options),

    eraseTenant: (tenant, options) => eraseTenant(hub, tenant, options),

    async notifications(generationId) {
      await mustGet(hub, generationId);
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
      await mustGet(hub, generationId);
      const moved = await outbox.redrive(generationId);
      if (moved > 0) await hastenNotification(hub, generationId);
      return moved;
    },

    limits: () => readLimits(hub),

    resume: () => resume(hub),

    async spend({ day, tenant } = {}) {
      const dayAt = day === undefined ? now() : Date.parse(`${day}T00:00:00Z`);
      if (day !== undefined && (!/^\d{4}-\d{2}-\d{2}$/.test(day) || Number.isNaN(dayAt))) {
        const message = `expected a day such as 2026-01-31, got ${JSON.stringify(day.slice(0, 40))}`;
        throw new InvalidInputError('The spend cannot be read', [{ path: 'day', message }]);
      }
      const inForce = await hub.limits.inForce();
      const of = { dayAt, ...(tenant === undefined ? {} : { tenant }) };
      return readSpend(hub.redis, hub.config.REDIS_PREFIX, inForce, of);
    },

    count: (states) => store.countByState(states),

    async close() {
      await watch.close();
      await hub.closeStorage();
      await hub.durations.close();
      await queues.close();
      await closeHub();
    },
  };
}

/** Null for one that a newer reelhaul wrote: it is named in the log, and the others are shown. */
async function readable(hub: Hub, id: string): Promise<GenerationRecord | null> {
  try {
    return await hub.store.get(id);
  } catch (error) {
    if (!(error instanceof NewerRecordError)) throw error;
    hub.log.warn({ generationId: id, err: error }, 'a generation of a newer version was left out of a list');
    return null;
  }
}

export interface CreateReelhaulOptions {
  /** A URL, or an ioredis instance (`Redis` or `Cluster`) that stays the app's own. Default: `REDIS_URL`. */
  readonly redis?: string | RedisConnection | undefined;
  /** Key prefix with one hash tag. Default: `REDIS_PREFIX`, `{reelhaul}`. */
  readonly prefix?: string | undefined;
  /** Where log lines go. Default: nowhere. */
  readonly log?: Logger | undefined;
  /** A configuration that was read already; overrides the environment. */
  readonly config?: Config | undefined;
}

/**
 * Connects and checks Redis.
 * @throws ConfigError or RedisUnusableError
 */
export async function createReelhaul(options: CreateReelhaulOptions = {}): Promise<Reelhaul> {
  const { redis: given, prefix, log = pino({ level: 'silent' }) } = options;
  const config =
    options.config ??
    readConfig({
      ...process.env,
      // An address that the app gives is where Redis is, whatever else the environment names.
      ...(typeof given === 'string'
        ? { REDIS_URL: given, REDIS_SENTINELS: '', REDIS_CLUSTER_NODES: '' }
        : {}),
      ...(prefix === undefined ? {} : { REDIS_PREFIX: prefix }),
    });
  const redis = typeof given === 'object' ? given : await connectRedis(config, 'producer', log);
  let clock: RedisClock | null = null;
  const release = async () => {
    clock?.close();
    if (redis !== given) redis.disconnect();
  };
  try {
    await checkRedis(redis);
    await checkLayout(redis, config.REDIS_PREFIX);
    clock = await openClock(redis, config.REDIS_PREFIX);
  } catch (error) {
    await release();
    throw error;
  }
  const openReader = () =>
    typeof given === 'object'
      ? Promise.resolve(duplicatePatiently(given))
      : connectRedis(config, 'worker', log);
  const hub = createHub({ config, log, redis, clock: clockOf(clock), activeTrace: await openActiveTrace() });
  // What an app cancels or decides is an end like those that workers see.
  const figures = startFigures({
    redis,
    keys: hub.store.keys,
    moves: hub.moves,
    onError: (error) => log.warn({ err: error }, 'figures could not be written yet'),
  });
  return createReelhaulOn(hub, openReader, async () => {
    await figures.close();
    await release();
  });
}
