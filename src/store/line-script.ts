/**
 * The waiting line as Lua: the functions that every script shares which lets a generation join or leave it. They build
 * their keys from the prefix (generation/keys.ts lists them), which has one hash tag, so that all lie in one slot.
 *
 * A queued generation is in exactly one place: `scheduled` (waits for its time), in the line, or taken (it has a submit
 * job: `ready` until that begins, then `starting`). A generation that is not queued is in none of them.
 *
 * Turns are start-time fair queueing (Goyal, Vin, Cheng 1996) over tenants: who has had its turn stands 1/weight further
 * back, and who comes anew stands where the clock is, so that neither a big backlog nor a long absence is worth anything.
 */
export const LINE = `
local function line_join(p, id, tenant, priority)
  redis.call('ZADD', p .. ':line:' .. tenant, priority, id)
  if tonumber(priority) > 0 then redis.call('ZADD', p .. ':aging:' .. tenant, 0, id) end
  if redis.call('ZSCORE', p .. ':line', tenant) or redis.call('ZSCORE', p .. ':capped', tenant) then return end
  local clock = tonumber(redis.call('GET', p .. ':line-clock') or '0')
  local rested = tonumber(redis.call('ZSCORE', p .. ':rested', tenant) or '0')
  redis.call('ZADD', p .. ':line', math.max(clock, rested), tenant)
  redis.call('ZREM', p .. ':rested', tenant)
end

local function line_leave(p, id, tenant)
  local taken = redis.call('ZREM', p .. ':starting', id) + redis.call('ZREM', p .. ':ready', id)
  if taken > 0 then
    redis.call('SREM', p .. ':taken:' .. tenant, id)
  elseif redis.call('ZREM', p .. ':line:' .. tenant, id) == 1 then
    redis.call('ZREM', p .. ':aging:' .. tenant, id)
  else
    redis.call('ZREM', p .. ':scheduled', id)
    redis.call('ZREM', p .. ':over-budget', id)
  end
end

-- place: 'ready' keeps it among those with a job; else the instant (epoch ms) before which it does not stand in line, or
-- as a negative number for how many ms from now on it does not
local function line_enter(p, id, tenant, priority, place, now)
  if place == 'ready' then
    redis.call('ZADD', p .. ':ready', now, id)
    redis.call('SADD', p .. ':taken:' .. tenant, id)
  elseif tonumber(place) < 0 or tonumber(place) > now then
    redis.call('ZADD', p .. ':scheduled', tonumber(place) < 0 and now - place or place, id)
  else
    line_join(p, id, tenant, priority)
  end
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
`;
