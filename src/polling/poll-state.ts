/**
 * Following a task cheaply: the few fields of a record that a poll needs, read and counted in one round trip, and the
 * hints that callbacks leave. A poll that finds nothing new costs nothing beyond `begin`, and one that finds progress one `note`.
 * Nothing here changes a state or writes an event: that goes through the store.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from '../store/keys.js';
import type { FieldPatch } from '../generation/record.js';
import { checkVersion, RECORD_VERSION } from '../store/read-record.js';
import type { ProgressMark } from './schedule.js';
import type { State } from '../generation/states.js';
import type { Submit } from '../generation/submits.js';

type Text = string | null;
const text = (value: Text) => value;
const number = (value: Text) => (value ? Number(value) : null);
const count = (value: Text) => Number(value ?? 0);
const flag = (value: Text) => value === '1';

/** What a poll reads of its generation. Instants are epoch milliseconds. BEGIN uses the first four by their place. */
const FIELDS = {
  state: (value: Text) => value as State,
  pollAttempts: count,
  taskId: text,
  v: text,
  /** How many transitions there were: what this poll finds is about this round only. */
  rev: count,
  createdAt: count,
  submittedAt: number,
  acceptedAt: number,
  deadlineAt: number,
  finishedAt: number,
  visibleAt: number,
  withoutUrlSince: number,
  progress: number,
  /** When the poll before this one began. */
  polledAt: number,
  /** The provider said "queued" last. */
  waiting: flag,
  /** When its work began, in milliseconds from acceptance. */
  startedAge: number,
  /** '<percent>@<ms from acceptance>' */
  mark: readMark,
  /** Which tasks it is measured by. Null in records of an older version: all kinds together. */
  kind: text,
  /** How many callbacks said that it may be over, and when the last of them came. */
  hints: count,
  hintedAt: number,
  /** When the last poll began that told something of the task (its acceptance, if none did); null: the one before this. */
  seenAt: number,
  /** Its submit gave the provider an address of ours to call back. */
  callback: flag,
  /** A callback named a further task that the provider has not shown. */
  unshown: flag,
  /** What the app is notified of; null: the ends. */
  notifyOn: text,
  submits: (value: Text) => JSON.parse(value || '[]') as readonly Submit[],
};
const NAMES = Object.keys(FIELDS) as (keyof typeof FIELDS)[];
type Fields = { readonly [name in keyof typeof FIELDS]: ReturnType<(typeof FIELDS)[name]> };

/**
 * BEGIN. Reads what a poll needs, and counts the poll while the generation is followed. The fields stand in the script:
 * as arguments of every poll they would be most of its bytes.
 * KEYS 1 record · ARGV 1 JSON { now, version }: the newest version that is known
 * Returns the values of `FIELDS`, those from before this poll.
 */
const BEGIN = `
local c = cjson.decode(ARGV[1])
local values = redis.call('HMGET', KEYS[1], '${NAMES.join("', '")}')
local state, polls, task, version = unpack(values, 1, 4)
if task and (tonumber(version) or 0) <= c.version and (state == 'generating' or state == 'expired' or state == 'canceled') then
  redis.call('HSET', KEYS[1], 'pollAttempts', (tonumber(polls) or 0) + 1, 'polledAt', c.now)
end
return values
`;

/**
 * NOTE. Writes what a poll brought to light while the round goes on that it was made in.
 * KEYS 1 record · ARGV 1 JSON { state, rev, set: field, text …, remove: fields }. Returns whether it was written.
 */
const NOTE = `
local c = cjson.decode(ARGV[1])
local state, rev = unpack(redis.call('HMGET', KEYS[1], 'state', 'rev'))
if state ~= c.state or (tonumber(rev) or 0) ~= c.rev then return 0 end
redis.call('HSET', KEYS[1], unpack(c.set))
if #c.remove > 0 then redis.call('HDEL', KEYS[1], unpack(c.remove)) end
return 1
`;

/**
 * HINT. Remembers that a callback came. One that is expired is looked after by the sweep again, whose late check may
 * have ended.
 * KEYS 1 record · 2 live · ARGV 1 JSON { id, now, task }: the task that it names, if any
 * Returns state, hints before this one, when the last poll began; false when there is no such record, or it has another task.
 */
const HINT = `
local c = cjson.decode(ARGV[1])
local state, hints, polledAt, task = unpack(redis.call('HMGET', KEYS[1], 'state', 'hints', 'polledAt', 'taskId'))
if not state then return false end
if task and c.task and c.task ~= task then return false end
redis.call('HSET', KEYS[1], 'hints', (tonumber(hints) or 0) + 1, 'hintedAt', c.now)
if state == 'expired' then redis.call('ZADD', KEYS[2], 0, c.id) end
return { state, hints or '0', polledAt or '' }
`;

/** What a poll knows of its generation. */
export interface Followed extends Fields {
  readonly id: string;
  /** When this poll began. */
  readonly beganAt: number;
}

export interface Hinted {
  readonly state: State;
  /** It is the first of this task. */
  readonly first: boolean;
  readonly polledAt: number | null;
}

export interface Following {
  /** Starts a poll: counts it, and says what it needs to know. Null when there is no such generation. @throws NewerRecordError */
  begin(id: string): Promise<Followed | null>;
  /**
   * Writes fields of a poll that no index, event or notification follows from. False when the generation has moved on since
   * `begin`.
   */
  note(followed: Followed, set: FieldPatch): Promise<boolean>;
  /** Remembers a callback's hint, in whatever state. Null when it is about no such generation, or not about its task. */
  hint(id: string, taskId: string | null): Promise<Hinted | null>;
  /** How many hints have come for this task. */
  hints(id: string): Promise<number>;
  /** Those of these whose last hint came after their last poll began, and when it came. */
  unheeded(ids: readonly string[]): Promise<{ readonly id: string; readonly hintedAt: number }[]>;
}

/** Fields of a task that is followed no more, for the `set` of a change that begins another. */
export const NOT_FOLLOWED_YET: FieldPatch = {
  polledAt: null,
  waiting: null,
  startedAge: null,
  mark: null,
  seenAt: null,
};
export const NOT_HINTED_YET: FieldPatch = { hints: null, hintedAt: null };

/** A mark as it stands in the record. */
export const writeMark = ({ progress, ageMs }: ProgressMark): string => `${progress}@${Math.round(ageMs)}`;

function readMark(text: string | null): ProgressMark | null {
  const [progress, ageMs] = (text ?? '').split('@').map(Number);
  return progress && ageMs ? { progress, ageMs } : null;
}

export function createFollowing({
  redis,
  keys,
  now,
}: {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly now: () => number;
}): Following {
  const begin = defineScript<(string | null)[]>(redis, 'reelhaulBeginPoll', BEGIN);
  const note = defineScript<number>(redis, 'reelhaulNotePoll', NOTE);
  const hint = defineScript<string[] | null>(redis, 'reelhaulHint', HINT);

  return {
    async begin(id) {
      const beganAt = now();
      const values = await begin([keys.record(id)], { now: String(beganAt), version: RECORD_VERSION });
      const [state, , , version] = values;
      if (state == null) return null;
      checkVersion(id, version ?? null);
      const fields = Object.fromEntries(
        NAMES.map((name, i) => [name, FIELDS[name](values[i] ?? null)]),
      ) as unknown as Fields;
      return { id, beganAt, ...fields };
    },

    async note({ id, state, rev }, fields) {
      const set: string[] = ['updatedAt', String(now())];
      for (const [field, value] of Object.entries(fields)) if (value !== null) set.push(field, String(value));
      const remove = Object.keys(fields).filter((field) => fields[field] === null);
      return (await note([keys.record(id)], { state, rev, set, remove })) === 1;
    },

    async hint(id, taskId) {
      const task = taskId === null || taskId === '' ? {} : { task: taskId };
      const said = await hint([keys.record(id), keys.live], { id, now: String(now()), ...task });
      if (said === null) return null;
      const [state, before, polledAt] = said;
      return { state: state as State, first: Number(before) === 0, polledAt: number(polledAt ?? null) };
    },

    hints: async (id) => Number((await redis.hget(keys.record(id), 'hints')) ?? 0),

    async unheeded(ids) {
      const rows = await Promise.all(ids.map((id) => redis.hmget(keys.record(id), 'hintedAt', 'polledAt')));
      return rows.flatMap(([hintedAt, polledAt], i) =>
        hintedAt && Number(hintedAt) >= Number(polledAt ?? 0)
          ? [{ id: ids[i]!, hintedAt: Number(hintedAt) }]
          : [],
      );
    },
  };
}
