/**
 * Uploads that generations start from, as Redis knows them; their bytes are in the storage, below a prefix of their own.
 * The same bytes of one tenant are kept once. An upload is kept while a generation names it; `inputs-unused` holds the
 * others by since when, and those whose bytes are only being written, so that no crash leaves bytes that nothing names.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from './keys.js';

/** An upload at every door. */
export interface StoredInput {
  /** What a request names it by: `{ "input": id }`. */
  readonly id: string;
  readonly sizeBytes: number;
  /** Hex digest of the bytes. */
  readonly sha256: string;
  readonly contentType: string;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
}

/**
 * input_release gives back what the record of a generation named: with its last one an upload is due for removal. For the
 * scripts that forget a record; other generations may wait for that one no longer.
 */
export const INPUT_RELEASE = `
local function input_release(p, id)
  for input in string.gmatch(redis.call('HGET', p .. ':g:' .. id, 'inputs') or '', '%S+') do
    local key = p .. ':input:' .. input
    if redis.call('EXISTS', key) == 1 and redis.call('HINCRBY', key, 'uses', -1) <= 0 then
      redis.call('ZADD', p .. ':inputs-unused', 0, input)
    end
  end
  redis.call('DEL', p .. ':before:' .. id)
end
`;

/**
 * REGISTER. The bytes of an upload are in the storage. KEYS 1 the upload · ARGV 1 JSON { prefix, id, tenant, sha256, at, fields }
 * Returns its id: another one when these bytes were known.
 */
const REGISTER = `
local c = cjson.decode(ARGV[1])
local index = c.prefix .. ':inputs-of:' .. c.tenant
local known = redis.call('HGET', index, c.sha256)
if known and known ~= c.id and redis.call('EXISTS', c.prefix .. ':input:' .. known) == 1 then
  redis.call('ZADD', c.prefix .. ':inputs-unused', 'XX', c.at, known)
  return known
end
redis.call('HSET', index, c.sha256, c.id)
redis.call('HSET', KEYS[1], unpack(c.fields))
return c.id
`;

/**
 * DROP. Forgets an upload that no generation names. KEYS 1 the upload · ARGV 1 JSON { prefix, id }
 * Returns 1 when its bytes are to be removed.
 */
const DROP = `
local c = cjson.decode(ARGV[1])
local tenant, sha256, uses = unpack(redis.call('HMGET', KEYS[1], 'tenant', 'sha256', 'uses'))
if tenant and tonumber(uses or '0') > 0 then
  redis.call('ZREM', c.prefix .. ':inputs-unused', c.id)
  return 0
end
if tenant and redis.call('HGET', c.prefix .. ':inputs-of:' .. tenant, sha256) == c.id then
  redis.call('HDEL', c.prefix .. ':inputs-of:' .. tenant, sha256)
end
redis.call('DEL', KEYS[1])
return 1
`;

export interface Inputs {
  /** Its bytes are about to be written: should that never be told, they are removed. */
  announce(id: string): Promise<void>;
  /** Returns the id under which the bytes are known from now on, maybe one of before. */
  register(tenant: string, input: StoredInput): Promise<string>;
  /** The upload of this tenant; null when there is none. */
  get(tenant: string, id: string): Promise<StoredInput | null>;
  /** The upload of this tenant with these bytes, kept from now on as if it came now; null when there is none. */
  find(tenant: string, sha256: string): Promise<StoredInput | null>;
  /** Uploads that no generation has named since `before` (epoch ms), the longest first. */
  unused(before: number, limit: number): Promise<string[]>;
  /** Forgets it, unless a generation names it. True: its bytes are to be removed, and `removed` told then. */
  drop(id: string): Promise<boolean>;
  removed(id: string): Promise<void>;
  /** Uploads of this tenant that no generation names are due for removal at once. */
  expire(tenant: string): Promise<void>;
}

export function createInputs(redis: RedisConnection, keys: Keys, now: () => number): Inputs {
  const register = defineScript<string>(redis, 'reelhaulInputRegister', REGISTER);
  const drop = defineScript<number>(redis, 'reelhaulInputDrop', DROP);
  const { prefix } = keys;

  async function get(tenant: string, id: string): Promise<StoredInput | null> {
    const hash = await redis.hgetall(keys.input(id));
    if (hash['tenant'] !== tenant) return null;
    return {
      id,
      sizeBytes: Number(hash['sizeBytes']),
      sha256: hash['sha256'] ?? '',
      contentType: hash['contentType'] ?? '',
      width: Number(hash['width']),
      height: Number(hash['height']),
    };
  }

  return {
    async announce(id) {
      await redis.zadd(keys.inputsUnused, now(), id);
    },

    register: (tenant, { id, ...described }) =>
      register([keys.input(id)], {
        prefix,
        id,
        tenant,
        sha256: described.sha256,
        at: String(now()),
        fields: Object.entries({ tenant, ...described })
          .flat()
          .map(String),
      }),

    get,

    async find(tenant, sha256) {
      const id = await redis.hget(`${prefix}:inputs-of:${tenant}`, sha256);
      if (id === null) return null;
      await redis.zadd(keys.inputsUnused, 'XX', now(), id);
      return get(tenant, id);
    },

    unused: (before, limit) =>
      redis.zrangebyscore(keys.inputsUnused, '-inf', `(${Math.floor(before)}`, 'LIMIT', 0, limit),

    drop: async (id) => (await drop([keys.input(id)], { prefix, id })) === 1,

    async removed(id) {
      await redis.zrem(keys.inputsUnused, id);
    },

    async expire(tenant) {
      for (const id of await redis.hvals(`${prefix}:inputs-of:${tenant}`))
        await redis.zadd(keys.inputsUnused, 'XX', 0, id);
    },
  };
}
