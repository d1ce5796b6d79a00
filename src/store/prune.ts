/** Forgets generations whose retention is over. */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from './keys.js';
import { INPUT_RELEASE } from './inputs.js';
import { RECORD_VERSION } from './read-record.js';

/** Read at once. */
const PAGE = 200;

/**
 * PRUNE. Forgets finished generations, the longest ended first. One that has a job, owes a notification or is
 * of a newer version stays.
 * KEYS 1 finished · ARGV 1 JSON { prefix, cutoffAt, skip, most, version }, the last one the newest that is known
 * Returns how many were looked at, and how many of them stay.
 */
const PRUNE = `${INPUT_RELEASE}
local c = cjson.decode(ARGV[1])
local p = c.prefix
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. c.cutoffAt, 'LIMIT', c.skip, c.most)
local kept = 0
for _, id in ipairs(ids) do
  local record = p .. ':g:' .. id
  if tonumber(redis.call('HGET', record, 'v') or '0') > c.version or redis.call('ZSCORE', p .. ':live', id) or redis.call('ZSCORE', p .. ':notifications-owed', id) then
    kept = kept + 1
  else
    local state, tenant, submits, task, hinted =
      unpack(redis.call('HMGET', record, 'state', 'tenant', 'submits', 'taskId', 'hintedTaskId'))
    local tasks = { task or '', hinted or '' }
    for i, submit in ipairs(cjson.decode(submits or '[]')) do
      tasks[#tasks + 1] = submit.taskId or ''
      if submit.liveUntil and submit.liveUntil <= tonumber(c.cutoffAt) then
        redis.call('ZREM', p .. ':in-flight', id .. '#' .. i)
        redis.call('ZREM', p .. ':in-flight:' .. tenant, id .. '#' .. i)
      end
    end
    for _, name in ipairs(tasks) do
      if redis.call('HGET', p .. ':tasks', name) == id then redis.call('HDEL', p .. ':tasks', name) end
    end
    if state then
      redis.call('ZREM', p .. ':state:' .. state, id)
      redis.call('ZREM', p .. ':tenant:' .. tenant .. ':' .. state, id)
    end
    input_release(p, id)
    redis.call('DEL', record, p .. ':answers:' .. id, p .. ':notifications:' .. id, p .. ':notifications-dead:' .. id)
    redis.call('ZREM', p .. ':notifications-dead', id)
    redis.call('ZREM', KEYS[1], id)
  end
end
return { #ids, kept }
`;

/** @returns what forgets up to `limit` generations that ended before `cutoffAt` (epoch ms), and says how many. */
export function createPruner(
  redis: RedisConnection,
  keys: Keys,
): (cutoffAt: number, limit: number) => Promise<number> {
  const prune = defineScript<[number, number]>(redis, 'reelhaulPrune', PRUNE);
  return async (cutoffAt, limit) => {
    let pruned = 0;
    for (let kept = 0; pruned < limit;) {
      const [looked, stay] = await prune([keys.finished], {
        prefix: keys.prefix,
        cutoffAt: String(Math.floor(cutoffAt)),
        skip: kept,
        most: Math.min(PAGE, limit - pruned),
        version: RECORD_VERSION,
      });
      pruned += looked - stay;
      kept += stay;
      if (looked === 0) break;
    }
    return pruned;
  };
}
