/**
 * The store: the records of all generations in Redis, and the only place that changes one. It promises:
 *
 * - a change is one Lua compare-and-set: record, indexes and event are written together or not at all;
 * - a transition happens only from the state it was decided in, and only where the table of states allows it;
 * - an idempotency key is held as long as its generation is unfinished, and `idempotencyTtlMs` beyond.
 */
import type { RedisConnection } from '../redis/connect.js';
import type { RawAnswer, FieldPatch, GenerationRecord } from '../generation/record.js';
import { announced, PROGRESS, type Change } from '../generation/change.js';
import { createChanger, type ChangeArguments } from './change-generation.js';
import { createWriter, type CreateResult, type NewGeneration } from './create-generation.js';
import { createPruner } from './prune.js';
import { createEraser, type Eraser } from './erase.js';
import {
  costArguments,
  createTurnReader,
  readVerdict,
  type SubmitCost,
  type TurnReader,
  type Verdict,
} from './submit-turn.js';
import { createKeys, type Keys } from './keys.js';
import { firstIdAt, createListing, type Listing, type ListPage } from './listing.js';
import type { Move } from '../generation/observers.js';
import { pack, unpack } from './compression.js';
import { hashOf, readRecord, RECORD_VERSION } from './read-record.js';
import { withSlots, type SlotSettings } from '../generation/slots.js';
import { writeSubmits, type Submit } from '../generation/submits.js';
import { MAX_EVENTS } from './event-stream.js';
import { TaskTakenError } from '../errors.js';
import { isTerminal, mayFollow, STATES, type State } from '../generation/states.js';
import { withStep } from '../generation/history.js';
import { unshownAfter } from '../generation/unshown.js';

const MAX_ANSWERS = 12;

/** All in these states need a job, and are listed as `live` since they entered the first of them. */
const IS_LIVE: ReadonlySet<State> = new Set(['queued', 'submitting', 'generating', 'archiving']);

/** `changed`: it is no longer where this was decided. Any other verdict but `go` keeps it queued. */
export type SubmitBegun =
  | { readonly kind: 'begun'; readonly record: GenerationRecord }
  | { readonly kind: 'changed' }
  | Exclude<Verdict, { readonly kind: 'go' }>;

export interface Whereabouts {
  readonly id: string;
  readonly state: State;
  readonly updatedAt: number;
  readonly runAt: number | null;
  readonly deadlineAt: number | null;
  readonly priority: number;
  readonly acceptedAt: number | null;
  readonly kind: string | null;
  readonly tenant: string;
  /** A task was named that the poll stage has to ask for, whatever the state is. */
  readonly unshown: boolean;
  /** Its place in fair order; null before it is due. */
  readonly turn: number | null;
}

export interface Store {
  readonly keys: Keys;
  create(generation: NewGeneration): Promise<CreateResult>;
  get(id: string): Promise<GenerationRecord | null>;
  /** What the sweep needs to know of many generations, and no more. */
  whereabouts(ids: readonly string[]): Promise<Whereabouts[]>;
  /**
   * Moves a generation on. Null when it is no longer where it was decided, or gone: read again, decide again. `turn`: the
   * new one of a generation that is queued again.
   * @throws TaskTakenError when a task that it names belongs to another generation
   */
  transition(
    record: GenerationRecord,
    to: State,
    change: Change & { live: boolean },
  ): Promise<{ readonly turn: number | null } | null>;
  readonly turns: TurnReader;
  /** `queued` → `submitting`, if limits and budget have room for it, which is reserved in the same step. */
  beginSubmit(record: GenerationRecord, change: Change, cost: SubmitCost): Promise<SubmitBegun>;
  /**
   * `submitting`, from whatever state Redis remembers: it lost a submit that this process made.
   */
  recoverSubmit(record: GenerationRecord, change: Change): Promise<boolean>;
  /** Changes fields without leaving the state. False as above. */
  amend(record: GenerationRecord, change: Change): Promise<boolean>;
  /** The generation that a task of the provider belongs to or may belong to; null for an unknown one. */
  idOfTask(taskId: string): Promise<string | null>;
  /** The generation that this tenant's idempotency key stands for; null when the key is free. */
  idOfKey(tenant: string, idempotencyKey: string): Promise<string | null>;
  /** What the provider said that decided something, oldest first. */
  answers(id: string): Promise<RawAnswer[]>;
  /** Ids, newest first. */
  list(listing: Listing): Promise<ListPage>;
  countByState(states: readonly State[]): Promise<Record<string, number>>;
  /** Ids that need a job, in order, after `after`. */
  live(after: string | null, limit: number): Promise<string[]>;
  /** Ids in that state, oldest first. */
  oldest(state: State, limit: number): Promise<string[]>;
  /** Generations that start from an asset of this one. */
  after(id: string): Promise<string[]>;
  /** How many were created in each of these spans (epoch ms, from inclusive), whatever their state is now. */
  countCreated(spans: readonly { readonly from: number; readonly to: number }[]): Promise<number[]>;
  /** When the last sweep ended, epoch ms; null when there was none. */
  sweptAt(): Promise<number | null>;
  /** Forgets up to `limit` generations that ended before `cutoffAt`. Returns how many. */
  prune(cutoffAt: number, limit: number): Promise<number>;
  readonly eraser: Eraser;
}

export interface StoreDeps {
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly idempotencyTtlMs: number;
  readonly now: () => number;
  /** Told of every transition that was made here. */
  readonly onMove?: (move: Move) => void;
  readonly slots: SlotSettings;
  /** These queued generations of one tenant waited for a slot that is free now. */
  readonly onFreed?: (generationIds: readonly string[]) => void;
}

const present = (fields: FieldPatch) =>
  Object.entries(fields).filter((entry): entry is [string, string | number] => entry[1] !== null);

/** As it is stored: names and checksums of files are kept packed. */
const asStored = ([field, value]: [string, string | number]): [string, string | number] =>
  field === 'assets' ? [field, pack(String(value))] : [field, value];

/** Every task id that a record or a change names. */
function taskIdsIn(
  fields: Readonly<Record<string, string | number | null | undefined>>,
  submits: readonly Submit[] = [],
): string[] {
  const ids = [fields['taskId'], fields['hintedTaskId'], ...submits.map((submit) => submit.taskId)];
  return [...new Set(ids.filter((id) => typeof id === 'string'))];
}

/** Those that the generation has not had: the others are its own since it got them. */
function newTaskIds({ taskId, hintedTaskId, submits }: GenerationRecord, change: Change): string[] {
  const had = new Set(taskIdsIn({ taskId, hintedTaskId }, submits));
  return taskIdsIn(change.set ?? {}, change.submits).filter((id) => !had.has(id));
}

/** How the idempotency key of a generation is held after a change. */
function idempotencyOf(
  { tenant, idempotencyKey, state }: GenerationRecord,
  to: State,
  live: boolean | undefined,
  { keys, ttlMs }: { readonly keys: Keys; readonly ttlMs: number },
): Pick<ChangeArguments, 'idempotency'> {
  if (idempotencyKey === null) return {};
  const key = keys.idempotency(tenant, idempotencyKey);
  // Held for good while something may still come of the generation, which for an expired one is its late check.
  if (isTerminal(to) && live === false) return { idempotency: { key, ttlMs: String(ttlMs) } };
  return live === true && isTerminal(state) ? { idempotency: { key } } : {};
}

/** The fields of a transition itself. With one look at the clock: every door tells the same instant. */
function stepTo(to: State, record: GenerationRecord, at: number): FieldPatch {
  const { state, trail, createdAt, finishedAt } = record;
  if (to === state) return {};
  const ended = isTerminal(to);
  return {
    trail: withStep(trail, createdAt, { state: to, at }),
    ...(ended || finishedAt !== null ? { finishedAt: ended ? at : null } : {}),
  };
}

export function createStore({
  redis,
  prefix,
  idempotencyTtlMs,
  now,
  onMove,
  slots,
  onFreed,
}: StoreDeps): Store {
  const keys = createKeys(prefix);
  const writer = createWriter(redis, keys);
  const changer = createChanger(redis, keys);

  /** The list of submits to write, when this change has one or may free a slot. */
  function submitsAfter(record: GenerationRecord, to: State, change: Change, at: number): Submit[] | null {
    const submits = change.submits ?? record.submits;
    if (change.submits === undefined && to === record.state && change.taskGone !== true) return null;
    if (submits.length === 0) return change.submits === undefined ? null : [];
    const taskId = (change.set?.['taskId'] === undefined ? record.taskId : change.set['taskId']) as
      string | null;
    const { acceptedAt, deadlineAt, state } = record;
    const instant = (name: string, before: number | null) =>
      (change.set?.[name] as number | undefined) ?? before;
    const lived = {
      state,
      acceptedAt: instant('acceptedAt', acceptedAt),
      deadlineAt: instant('deadlineAt', deadlineAt),
    };
    return withSlots(submits, lived, { to, taskId, at, taskGone: change.taskGone ?? false, settings: slots });
  }

  function argumentsOf(
    record: GenerationRecord,
    to: State,
    change: Change,
    at: number,
  ): Omit<ChangeArguments, 'prefix'> {
    const submits = submitsAfter(record, to, change, at);
    // The revision makes sure that a change decided in one round is not made in a later one that looks the same.
    const expect = {
      rev: record.rev === 0 ? '' : String(record.rev),
      ...(submits === null ? {} : { submits: writeSubmits(record.submits) }),
      ...change.expect,
    };
    const moved = to !== record.state;
    const { set: unshown, live } = unshownAfter(record, to, change);
    const fields: FieldPatch = {
      ...change.set,
      ...unshown,
      ...stepTo(to, record, at),
      ...(moved ? { state: to, rev: record.rev + 1 } : {}),
      ...(submits === null ? {} : { submits: submits.length === 0 ? null : JSON.stringify(submits) }),
      v: RECORD_VERSION,
      updatedAt: at,
    };
    const notification = announced(record, to, change);
    return {
      id: record.id,
      tenant: record.tenant,
      from: record.state,
      to,
      at: String(at),
      expect: Object.entries(expect).flat(),
      set: present(fields).map(asStored).flat().map(String),
      remove: Object.keys(fields).filter((field) => fields[field] === null),
      count: change.count ?? [],
      tasks: newTaskIds(record, change),
      ...(change.ownTask ? { ownTask: true } : {}),
      ...(change.forget ? { forget: change.forget } : {}),
      ...(submits === null ? {} : { submits: JSON.stringify(submits) }),
      ...(moved && to === 'queued' && !change.keepsTurn ? { newTurn: true } : {}),
      priority: String(record.priority),
      ...(live === undefined || (live && IS_LIVE.has(record.state)) ? {} : { live }),
      ...(change.answer ? { answer: pack(JSON.stringify(change.answer)) } : {}),
      ...(change.event ? { event: change.event } : {}),
      ...idempotencyOf(record, to, live, { keys, ttlMs: idempotencyTtlMs }),
      ...(notification === null ? {} : { notification }),
      ...(notification === PROGRESS ? { progress: true } : {}),
      ...(isTerminal(to) ? { ended: true } : {}),
      ...(isTerminal(record.state) ? { hadEnded: true } : {}),
      maxEvents: MAX_EVENTS,
      maxAnswers: MAX_ANSWERS,
    };
  }

  /** Null when it is no longer where this was decided. */
  async function change(
    record: GenerationRecord,
    to: State,
    change: Change,
  ): Promise<{ readonly turn: number | null } | null> {
    const at = now();
    const [kind, ...rest] = (await changer(argumentsOf(record, to, change, at))) as [string, ...string[]];
    if (kind === 'changed' || kind === 'gone') return null;
    if (kind === 'task_taken') throw new TaskTakenError(rest[0] ?? '');
    if (kind !== 'done') throw new Error(`unknown answer to a change: ${kind}`);
    if (to !== record.state) onMove?.({ record, from: record.state, to, at, change });
    const [turn, ...freed] = rest;
    if (freed.length > 0) onFreed?.(freed);
    return { turn: turn ? Number(turn) : null };
  }

  async function beginSubmit(
    record: GenerationRecord,
    change: Change,
    cost: SubmitCost,
  ): Promise<SubmitBegun> {
    const at = now();
    const wanted = argumentsOf(record, 'submitting', change, at);
    const [kind, ...rest] = await changer({ ...wanted, begin: costArguments(cost) });
    if (kind === 'changed' || kind === 'gone') return { kind: 'changed' };
    if (kind !== 'begun') return readVerdict([kind, ...(rest as string[])]) as SubmitBegun;
    onMove?.({ record, from: record.state, to: 'submitting', at, change });
    return { kind: 'begun', record: readRecord(record.id, hashOf(rest[0] as string[])) };
  }

  return {
    keys,

    async create(generation) {
      const { id, tenant, createdAt, fields } = generation;
      const whole = {
        ...fields,
        v: RECORD_VERSION,
        state: 'queued',
        tenant,
        createdAt,
        updatedAt: createdAt,
      };
      const result = await writer(generation, present(whole).flat().map(String));
      // A create whose answer was lost with the connection is sent again by ioredis and meets itself.
      return !result.created && 'digest' in result && result.generationId === id
        ? { created: true, turn: null, waitMs: 0, waitsFor: [] }
        : result;
    },

    async get(id) {
      const hash = await redis.hgetall(keys.record(id));
      return hash['state'] ? readRecord(id, hash) : null;
    },

    async whereabouts(ids) {
      const rows = await Promise.all(
        ids.map((id) =>
          redis.hmget(
            keys.record(id),
            'state',
            'updatedAt',
            'runAt',
            'deadlineAt',
            'priority',
            'acceptedAt',
            'kind',
            'tenant',
            'turn',
            'v',
            'unshown',
          ),
        ),
      );
      // What a newer reelhaul wrote is its own to look after.
      return rows.flatMap(
        ([state, updatedAt, runAt, deadlineAt, priority, acceptedAt, kind, tenant, turn, v, unshown], i) =>
          state && Number(v ?? 0) <= RECORD_VERSION
            ? [
                {
                  id: ids[i]!,
                  state: state as State,
                  updatedAt: Number(updatedAt),
                  runAt: runAt ? Number(runAt) : null,
                  deadlineAt: deadlineAt ? Number(deadlineAt) : null,
                  priority: Number(priority ?? 0),
                  acceptedAt: acceptedAt ? Number(acceptedAt) : null,
                  kind: kind ?? null,
                  tenant: tenant ?? '',
                  unshown: unshown === '1',
                  turn: turn ? Number(turn) : null,
                },
              ]
            : [],
      );
    },

    transition(record, to, wanted) {
      if (!mayFollow(record.state, to)) throw new Error(`${to} may not follow ${record.state}`);
      return change(record, to, wanted);
    },

    turns: createTurnReader(redis, keys),

    beginSubmit,

    recoverSubmit: async (record, wanted) => (await change(record, 'submitting', wanted)) !== null,

    amend: async (record, wanted) => (await change(record, record.state, wanted)) !== null,

    idOfTask: (taskId) => redis.hget(keys.tasks, taskId),

    async idOfKey(tenant, idempotencyKey) {
      return (await redis.get(keys.idempotency(tenant, idempotencyKey)))?.split(' ')[0] ?? null;
    },

    async answers(id) {
      const packed = await redis.lrange(keys.answers(id), 0, -1);
      return packed.map((text) => JSON.parse(unpack(text)) as RawAnswer);
    },

    list: createListing(redis, keys),

    async countByState(states) {
      const counts = await Promise.all(states.map((state) => redis.zcard(keys.state(state))));
      return Object.fromEntries(states.map((state, i) => [state, counts[i] ?? 0]));
    },

    live: (after, limit) =>
      redis.zrange(keys.live, after ? `(${after}` : '-', '+', 'BYLEX', 'LIMIT', 0, limit),

    after: (id) => redis.zrange(keys.before(id), '0', '-1'),

    oldest: (state, limit) => redis.zrange(keys.state(state), '-', '+', 'BYLEX', 'LIMIT', 0, limit),

    async countCreated(spans) {
      const pipeline = redis.pipeline();
      for (const { from, to } of spans)
        for (const state of STATES)
          pipeline.zlexcount(keys.state(state), `[${firstIdAt(from)}`, `(${firstIdAt(to)}`);
      const replies = (await pipeline.exec()) ?? [];
      return spans.map((_, i) =>
        replies.slice(i * STATES.length, (i + 1) * STATES.length).reduce((sum, [error, n]) => {
          if (error) throw error;
          return sum + Number(n);
        }, 0),
      );
    },

    async sweptAt() {
      const at = await redis.get(keys.swept);
      return at === null ? null : Number(at);
    },

    prune: createPruner(redis, keys),

    eraser: createEraser(redis, keys),
  };
}
