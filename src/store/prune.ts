/** Forgets generations whose retention is over. */
import type { RedisConnection } from '../redis/connect.js';
import type { Keys } from './keys.js';
import { INPUT_RELEASE } from './inputs.js';
import { RECORD_VERSION } from './read-record.js';

/** So many are looked at in one go. */
const PAGE = 200;

/**
 * PRUNE. Forgets finished generations, the longest ended first. One that has a job, owes a notification or is
 * of a newer version stays.
 * KEYS 1 finished · ARGV 1 prefix · 2 cutoff, epoch ms · 3 how many to pass over · 4 how many to look at · 5 the newest version that is known
 * Returns how many were looked at, and how many of them stay.
 */
const PRUNE = `${INPUT_RELEASE}
local p = ARGV[1]
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2], 'LIMIT', ARGV[3], ARGV[4])
local kept = 0
for _, id in ipairs(ids) do
  local record = p .. ':g:' .. id
  if tonumber(redis.call('HGET', record, 'v') or '0') > tonumber(ARGV[5]) or redis.call('ZSCORE', p .. ':live', id) or redis.call('ZSCORE', p .. ':notifications-owed', id) then
    kept = kept + 1
  else
    local state, tenant, submits, task, hinted =
      unpack(redis.call('HMGET', record, 'state', 'tenant', 'submits', 'taskId', 'hintedTaskId'))
    local tasks = { task or '', hinted or '' }
    for i, submit in ipairs(cjson.decode(submits or '[]')) do
      tasks[#tasks + 1] = submit.taskId or ''
      if submit.liveUntil and submit.liveUntil <= tonumber(ARGV[2]) then
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

interface Scripts {
  reelhaulPrune(...args: (string | number)[]): Promise<[number, number]>;
}

/** @returns what forgets up to `limit` generations that ended before `cutoffAt` (epoch ms), and says how many. */
export function createPruner(
  redis: RedisConnection,
  keys: Keys,
): (cutoffAt: number, limit: number) => Promise<number> {
  redis.defineCommand('reelhaulPrune', { lua: PRUNE, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  return async (cutoffAt, limit) => {
    let pruned = 0;
    for (let kept = 0; pruned < limit;) {
      const [looked, stay] = await scripts.reelhaulPrune(
        keys.finished,
        keys.prefix,
        Math.floor(cutoffAt),
        kept,
        Math.min(PAGE, limit - pruned),
        RECORD_VERSION,
      );
      pruned += looked - stay;
      kept += stay;
      if (looked === 0) break;
    }
    return pruned;
  };
}
