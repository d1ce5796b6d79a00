/** What the scripts of the gate share: their argument, the time, and the pace of calls. */

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

/** This share of the rate limit may leave at once; the rest is spread over the window. */
const BURST_SHARE = 0.02;
/** Calls per second after a 429 where no limit is configured, and the pace at which such a limit ends. */
const SLOW_START = 20;
const FREE_AGAIN = 200;
const DOUBLING_MS = 1000;
/** The slowest pace, in calls per second. */
export const SLOWEST = 0.2;

/**
 * KEYS 1 gate of the target · 2 rate · 3 refusals of single generations · 4 gates of hosts, by their last use
 * ARGV 1 JSON
 */
export const GATE = `
local arg = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function hash(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  return fields
end

-- The time until then. Redis' time may jump back; no wait may become longer than it was at its begin.
local function ms_until(at, longest)
  local wait = (at or 0) - now
  if wait > longest then return 0 end
  return math.max(0, wait)
end
`;

/**
 * Reads the rate limit: the one that was published last, or that of this process when none was.
 * After a 429 `per_second` is the pace that doubles each second from half the former one.
 */
export const PACE = `
local rate = hash(KEYS[2])
local max, window = rate.max or arg.rate.max, rate.windowMs or arg.rate.windowMs
local interval, burst = 0, 1
if max > 0 then
  burst = math.max(1, math.floor(max * ${BURST_SHARE}))
  interval = window / (max - burst + 1)
end
local per_second = nil
if rate.slowedAt and rate.slowedAt > now then
  -- The time of Redis jumped back: count from now.
  if rate.pace then rate.paceAt = now + (rate.paceAt - rate.slowedAt) end
  rate.slowedAt = now
  redis.call('HSET', KEYS[2], 'slowedAt', now)
  if rate.pace then redis.call('HSET', KEYS[2], 'paceAt', rate.paceAt) end
end
if rate.pace then
  per_second = rate.pace * 2 ^ (math.max(0, now - rate.paceAt) / ${DOUBLING_MS})
  if (max > 0 and 1000 / per_second <= interval) or (max == 0 and per_second >= ${FREE_AGAIN}) then
    redis.call('HDEL', KEYS[2], 'pace', 'paceAt')
    per_second = nil
  else
    interval, burst = 1000 / per_second, 1
  end
end
`;

/** Halves the pace for all. A call that left before the last halving only moves the time from which the pace doubles. */
export const SLOW_DOWN = `
local function slow_down(hold_ms)
${PACE}
  local from = now + hold_ms
  if rate.slowedAt and now - arg.leftAgoMs <= rate.slowedAt then
    if per_second and from > rate.paceAt then redis.call('HSET', KEYS[2], 'paceAt', from) end
    return
  end
  local base = per_second or (max > 0 and max * 1000 / window) or ${2 * SLOW_START}
  redis.call('HSET', KEYS[2], 'pace', string.format('%.6f', math.max(${SLOWEST}, base / 2)), 'paceAt', from,
    'slowedAt', now)
end
`;
