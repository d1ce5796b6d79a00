/**
 * The outbox: notifications that are owed to apps and not yet delivered. A notification is written by the very script
 * that moves its generation (`store.ts`), with a copy of the record as it was then. So an end is announced if and only
 * if it happened, exactly once under one id, whatever crashes in between; the sweep finds what has no job.
 *
 * Per generation one hash of what is due and one of what is dead. A field is the number of the notification, or
 * `progress`, of which only the newest is kept; `<field>.tries` beside it says how its delivery has gone so far.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from './keys.js';
import { toGeneration, type Generation } from '../generation/record.js';
import { MAX_EVENTS } from './event-stream.js';
import { readRecord } from './read-record.js';

/** One notification that was not delivered yet. Instants are epoch milliseconds. */
export interface Notification {
  /** The `webhook-id`: the same at every try, different for every end. */
  readonly id: string;
  readonly generationId: string;
  /** `generation.succeeded`, `generation.failed`, `generation.expired`, `generation.canceled`, `generation.progress`. */
  readonly type: string;
  readonly url: string;
  /** When what it tells happened. */
  readonly at: number;
  readonly attempts: number;
  /** When it is tried next; null once it is dead. */
  readonly nextAttemptAt: number | null;
  /** Why the last try failed; null before the first. */
  readonly lastError: string | null;
  /** Given up: it stays until `retryNotification`, or until the generation is forgotten. */
  readonly dead: boolean;
}

/** A notification with what it says: the generation as it was at that moment. */
export interface DueNotification extends Notification {
  readonly field: string;
  readonly number: number;
  readonly generation: Generation;
}

/** For display, without its content. */
export function withoutContent(notification: DueNotification): Notification {
  const { field: _field, number: _number, generation: _generation, ...shown } = notification;
  return shown;
}

export type DeliveryResult =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'failed'; readonly reason: string; readonly nextAttemptAt: number }
  | { readonly kind: 'dead'; readonly reason: string };

/**
 * SETTLE. Writes down how a delivery went. The generation itself is not touched, only its count of tries.
 * KEYS 1 record · 2 due notifications · 3 dead ones
 * ARGV 1 JSON { prefix, id, tenant, field, number it must still have, kind: 'delivered' | 'failed' | 'dead', tries as JSON, at,
 *      webhookId, maxEvents }
 * Returns 1, or 0 when a newer notification has taken its place or another worker was first.
 */
const SETTLE = `
local c = cjson.decode(ARGV[1])
local p, id, tries = c.prefix, c.id, c.field .. '.tries'
local text = redis.call('HGET', KEYS[2], c.field)
if not text or tostring(cjson.decode(text).n) ~= c.number then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'notifyAttempts', 1) end
if c.kind == 'failed' then
  redis.call('HSET', KEYS[2], tries, c.tries)
  return 1
end
redis.call('HDEL', KEYS[2], c.field, tries)
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', p .. ':notifications-owed', id) end
local said = 'notified'
if c.kind == 'dead' then
  said = 'notification_dead'
  redis.call('HSET', KEYS[3], c.number, text, c.number .. '.tries', c.tries)
  redis.call('ZADD', p .. ':notifications-dead', 0, id)
end
redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', said, 'text', c.webhookId, 'at', c.at, 'tenant', c.tenant)
return 1
`;

/**
 * REDRIVE. Makes the dead notifications of a generation due again, with all their tries before them.
 * KEYS 1 due notifications · 2 dead ones · ARGV 1 JSON { prefix, id }
 * Returns how many.
 */
const REDRIVE = `
local c = cjson.decode(ARGV[1])
local dead, moved = redis.call('HGETALL', KEYS[2]), 0
for i = 1, #dead, 2 do
  if not string.find(dead[i], '.', 1, true) then
    redis.call('HSET', KEYS[1], dead[i], dead[i + 1])
    moved = moved + 1
  end
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', c.prefix .. ':notifications-dead', c.id)
if moved > 0 then redis.call('ZADD', c.prefix .. ':notifications-owed', 0, c.id) end
return moved
`;

export interface Outbox {
  /** What is owed for this generation, oldest first. */
  due(generationId: string): Promise<DueNotification[]>;
  /** What was given up, oldest first. */
  dead(generationId: string): Promise<Notification[]>;
  /** Records a try. False when it was settled already, or is no longer the newest progress. */
  settle(notification: DueNotification, result: DeliveryResult): Promise<boolean>;
  /** Makes the dead ones due again. Returns how many; the job is the caller's to add. */
  redrive(generationId: string): Promise<number>;
  /** Ids with due notifications, in order, after `after`. */
  owed(after: string | null, limit: number): Promise<string[]>;
  /** Ids with dead notifications, newest generation first, before `before`. */
  deadIds(before: string | null, limit: number): Promise<string[]>;
  countDead(): Promise<number>;
  /** The number of generations with due notifications. */
  countOwed(): Promise<number>;
}

export interface OutboxDeps {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly now: () => number;
}

interface Written {
  readonly n: number;
  readonly type: string;
  readonly at: string;
  /** Field, value, … of the record. */
  readonly record: readonly string[];
}

interface Tries {
  readonly attempts: number;
  readonly nextAttemptAt: number | null;
  readonly lastError: string | null;
}

function readHash(
  generationId: string,
  hash: Readonly<Record<string, string>>,
  dead: boolean,
): DueNotification[] {
  const found = Object.entries(hash).flatMap(([field, text]): DueNotification[] => {
    if (field.includes('.')) return [];
    const { n, type, at, record } = JSON.parse(text) as Written;
    const fields: Record<string, string> = {};
    for (let i = 0; i + 1 < record.length; i += 2) fields[record[i]!] = record[i + 1]!;
    const tries = hash[`${field}.tries`];
    const { attempts, nextAttemptAt, lastError }: Tries = tries
      ? (JSON.parse(tries) as Tries)
      : { attempts: 0, nextAttemptAt: Number(at), lastError: null };
    const generation = toGeneration(readRecord(generationId, fields));
    const url = fields['notifyUrl'] ?? '';
    return [
      {
        ...{ id: `${generationId}.${n}`, generationId, type, url, at: Number(at) },
        ...{ attempts, nextAttemptAt: dead ? null : nextAttemptAt, lastError, dead },
        ...{ field, number: n, generation },
      },
    ];
  });
  return found.sort((a, b) => a.number - b.number);
}

export function createOutbox({ redis, keys, now }: OutboxDeps): Outbox {
  const settle = defineScript<number>(redis, 'reelhaulSettleNotification', SETTLE);
  const redrive = defineScript<number>(redis, 'reelhaulRedriveNotifications', REDRIVE);
  const { prefix } = keys;

  return {
    due: async (id) => readHash(id, await redis.hgetall(keys.notifications(id)), false),

    async dead(id) {
      return readHash(id, await redis.hgetall(keys.deadNotifications(id)), true).map(withoutContent);
    },

    async settle(notification, result) {
      const { id, generationId, field, number, generation } = notification;
      const tries: Tries = {
        attempts: notification.attempts + 1,
        nextAttemptAt: result.kind === 'failed' ? result.nextAttemptAt : null,
        lastError: result.kind === 'delivered' ? null : result.reason,
      };
      const touched = [
        keys.record(generationId),
        keys.notifications(generationId),
        keys.deadNotifications(generationId),
      ];
      const done = await settle(touched, {
        prefix,
        id: generationId,
        tenant: generation.tenant,
        field,
        number: String(number),
        kind: result.kind,
        tries: JSON.stringify(tries),
        at: String(now()),
        webhookId: id,
        maxEvents: MAX_EVENTS,
      });
      return done === 1;
    },

    redrive: (id) => redrive([keys.notifications(id), keys.deadNotifications(id)], { prefix, id }),

    owed: (after, limit) =>
      redis.zrange(keys.notificationsOwed, after ? `(${after}` : '-', '+', 'BYLEX', 'LIMIT', 0, limit),

    deadIds: (before, limit) =>
      redis.zrange(
        keys.notificationsDead,
        before ? `(${before}` : '+',
        '-',
        'BYLEX',
        'REV',
        'LIMIT',
        0,
        limit,
      ),

    countDead: () => redis.zcard(keys.notificationsDead),
    countOwed: () => redis.zcard(keys.notificationsOwed),
  };
}
