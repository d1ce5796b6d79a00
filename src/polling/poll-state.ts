/**
 * Following a task cheaply: the few fields of a record that a poll needs, read and counted in one round trip, and the
 * hints that callbacks leave. A poll that finds nothing new costs nothing beyond `begin`, and one that finds progress one `note`.
 * Nothing here changes a state or writes an event: that goes through the store.
 *
 *   polledAt     when the last poll began              waiting     '1' while the provider said "queued" last
 *   startedAge   when its work began, ms from acceptance          mark        '<percent>@<ms from acceptance>'
 *   kind         which tasks it is measured by         hints       how many callbacks said that it may be over
 *   unshown      '1' while a further task was named that was not shown
 *   hintedAt     when the last of them came                seenAt      when the last poll began that told something of the
 *                                                                      task, while those after it did not
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from '../store/keys.js';
import type { FieldPatch } from '../generation/record.js';
import { checkVersion, RECORD_VERSION } from '../store/read-record.js';
import type { ProgressMark } from './schedule.js';
import type { State } from '../generation/states.js';
import type { Submit } from '../generation/submits.js';

/** BEGIN reads the first four by their place. */
const FIELDS = [
  'state',
  'pollAttempts',
  'taskId',
  'v',
  'rev',
  'createdAt',
  'submittedAt',
  'acceptedAt',
  'deadlineAt',
  'finishedAt',
  'visibleAt',
  'withoutUrlSince',
  'progress',
  'polledAt',
  'waiting',
  'startedAge',
  'mark',
  'kind',
  'hints',
  'hintedAt',
  'seenAt',
  'callback',
  'unshown',
  'notifyOn',
  'submits',
] as const;

/**
 * BEGIN. Reads what a poll needs, and counts the poll while the generation is followed. The fields stand in the script:
 * as arguments of every poll they would be most of its bytes.
 * KEYS 1 record · ARGV 1 JSON { now, version }: the newest version that is known
 * Returns the values of `FIELDS`, those from before this poll.
 */
const BEGIN = `
local c = cjson.decode(ARGV[1])
local values = redis.call('HMGET', KEYS[1], '${FIELDS.join("', '")}')
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

/** What a poll knows of its generation. Instants are epoch milliseconds. */
export interface Followed {
  readonly id: string;
  readonly state: State;
  readonly taskId: string | null;
  /** How many transitions there were: what this poll finds is about this round only. */
  readonly rev: number;
  readonly createdAt: number;
  readonly submittedAt: number | null;
  readonly acceptedAt: number | null;
  readonly deadlineAt: number | null;
  readonly finishedAt: number | null;
  readonly visibleAt: number | null;
  readonly withoutUrlSince: number | null;
  readonly progress: number | null;
  /** When the poll before this one began. */
  readonly polledAt: number | null;
  /** When this one did. */
  readonly beganAt: number;
  readonly waiting: boolean;
  readonly startedAgeMs: number | null;
  readonly mark: ProgressMark | null;
  /** Null in records of an older version: they are measured by all kinds together. */
  readonly kind: string | null;
  readonly hints: number;
  readonly hintedAt: number | null;
  /** Its submit gave the provider an address of ours to call back. */
  readonly callback: boolean;
  /** A callback named a further task that the provider has not shown. */
  readonly unshown: boolean;
  /** When the last poll began that told something of the task (its acceptance, if none did); null: the one before this. */
  readonly seenAt: number | null;
  /** The app is notified of progress as well. */
  readonly notifiesProgress: boolean;
  readonly submits: readonly Submit[];
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

const number = (text: string | null | undefined): number | null => (text ? Number(text) : null);

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
      const of = (field: (typeof FIELDS)[number]) => values[FIELDS.indexOf(field)] ?? null;
      const state = of('state');
      if (state === null) return null;
      checkVersion(id, of('v'));
      return {
        id,
        state: state as State,
        taskId: of('taskId'),
        rev: Number(of('rev') ?? 0),
        createdAt: Number(of('createdAt')),
        submittedAt: number(of('submittedAt')),
        acceptedAt: number(of('acceptedAt')),
        deadlineAt: number(of('deadlineAt')),
        finishedAt: number(of('finishedAt')),
        visibleAt: number(of('visibleAt')),
        withoutUrlSince: number(of('withoutUrlSince')),
        progress: number(of('progress')),
        polledAt: number(of('polledAt')),
        beganAt,
        waiting: of('waiting') === '1',
        startedAgeMs: number(of('startedAge')),
        mark: readMark(of('mark')),
        kind: of('kind'),
        hints: Number(of('hints') ?? 0),
        hintedAt: number(of('hintedAt')),
        seenAt: number(of('seenAt')),
        callback: of('callback') === '1',
        unshown: of('unshown') === '1',
        notifiesProgress: of('notifyOn') === 'progress',
        submits: JSON.parse(of('submits') || '[]') as Submit[],
      };
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
      return { state: state as State, first: Number(before) === 0, polledAt: number(polledAt) };
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
