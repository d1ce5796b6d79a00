/**
 * Lua shared by the scripts that let a generation join or leave the submit queue. Keys are built from the prefix by the
 * names in keys.ts; all have one hash tag, and so lie in one slot.
 *
 * Fair order is start-time fair queueing (Goyal, Vin, Cheng 1996) over tenants: the start tag of a generation, its `turn`,
 * becomes the priority of its BullMQ job. A tenant's next tag is 1/weight behind its last one, and never behind the clock,
 * which is the tag of the generation that was submitted last: neither a big backlog nor a long absence is worth anything.
 */

/** Redis' time in epoch ms, the same all through a script; and the limits of one tenant: weight, cap in flight (0: none). */
const COMMON = `
local now_seen
local function now_ms()
  if not now_seen then
    local time = redis.call('TIME')
    now_seen = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_seen
end

local limits_seen
local function limits(p)
  limits_seen = limits_seen or redis.call('HMGET', p .. ':limits', 'maxInFlight', 'budgeted', 'budget', 'tenantBudget',
    'tenantMaxInFlight', 'tenanted')
  return limits_seen
end

local function tenant_limits(p, tenant)
  local cap = tonumber(limits(p)[5] or '0')
  local own = limits(p)[6] == '1' and redis.call('HGET', p .. ':limits:tenants', tenant)
  if not own then return 1, cap end
  local weight, own_cap = string.match(own, '^(%S+) (%S+)$')
  if own_cap ~= '-' then cap = tonumber(own_cap) end
  return tonumber(weight), cap
end
`;

/**
 * queue_turn gives a tenant's next turn. Turns restart when nothing is queued. queue_leave takes a generation out of all
 * that a queued one stands in: `queue-order:<tenant>` (due, by its own priority), `scheduled`, `parked:<tenant>` (its
 * tenant is at its cap), `chained` (it starts from another one that is not over) and `over-budget`.
 */
export const QUEUED = `${COMMON}
local function queue_turn(p, tenant)
  if redis.call('ZCARD', p .. ':state:queued') + redis.call('ZCARD', p .. ':state:submitting') == 0 then
    redis.call('DEL', p .. ':queue-clock', p .. ':queue-turns')
  end
  local clock = tonumber(redis.call('GET', p .. ':queue-clock') or '0')
  local turn = math.max(clock, tonumber(redis.call('ZSCORE', p .. ':queue-turns', tenant) or '0'))
  redis.call('ZREMRANGEBYSCORE', p .. ':queue-turns', '-inf', clock)
  redis.call('ZADD', p .. ':queue-turns', turn + 1 / tenant_limits(p, tenant), tenant)
  return string.format('%.6f', turn)
end

local function queue_unlist_parked(p, id, tenant)
  if redis.call('ZREM', p .. ':parked:' .. tenant, id) == 1 and redis.call('EXISTS', p .. ':parked:' .. tenant) == 0 then
    redis.call('SREM', p .. ':parked', tenant)
  end
end

-- Of one that admission let go: it is scheduled no more, and TURN took it out of the order.
local function queue_leave_admitted(p, id, tenant)
  if limits(p)[2] == '1' then redis.call('ZREM', p .. ':over-budget', id) end
  queue_unlist_parked(p, id, tenant)
end

local function queue_leave(p, id, tenant)
  redis.call('ZREM', p .. ':queue-order:' .. tenant, id)
  redis.call('ZREM', p .. ':scheduled', id)
  redis.call('ZREM', p .. ':over-budget', id)
  redis.call('ZREM', p .. ':chained', id)
  queue_unlist_parked(p, id, tenant)
end

local function queue_unpark(p, tenant, now)
  local parked = p .. ':parked:' .. tenant
  if redis.call('EXISTS', parked) == 0 then return {} end
  local _, cap = tenant_limits(p, tenant)
  redis.call('ZREMRANGEBYSCORE', p .. ':in-flight:' .. tenant, '-inf', now)
  local free = cap == 0 and 100 or cap - redis.call('ZCARD', p .. ':in-flight:' .. tenant)
  if free <= 0 then return {} end
  return redis.call('ZRANGE', parked, 0, math.min(free, 100) - 1)
end
`;

/**
 * chain_waits(p, after) says which of these generations (ids with blanks between) are not over yet; '' when none is, or when
 * one has ended without success: then nothing is left to wait for.
 */
export const CHAIN = `
local function chain_waits(p, after)
  local waits = {}
  for other in string.gmatch(after or '', '%S+') do
    local state = redis.call('HGET', p .. ':g:' .. other, 'state')
    if not state or state == 'failed' or state == 'expired' or state == 'canceled' then return '' end
    if state ~= 'succeeded' then waits[#waits + 1] = other end
  end
  return table.concat(waits, ' ')
end
`;

/** A parked job asks again by itself after this time; the end of a task of its tenant promotes it earlier. */
const PARKED_MS = 600_000;

/**
 * May this generation be submitted now? admission(p, id, tenant, record, price, unpriced) takes its fields { deadlineAt, runAt,
 * turn } (false: none) and returns nil when it may, else what keeps it back:
 * { 'unpublished' }, { 'overdue' }, { 'early', ms }, { 'capped', ms }, { 'full' }, { 'over_day' }, { 'over_tenant_day' },
 * { 'unpriced' }. Without limits in Redis nothing is submitted.
 */
export const ADMISSION = `
local function admission_over(p, key, suffix, cap, price)
  if not cap or cap == '' then return false end
  local spent = redis.call('HMGET', key, 'possible' .. suffix, 'charged' .. suffix)
  return (tonumber(spent[1] or '0') + tonumber(spent[2] or '0') + price) > tonumber(cap)
end

local function admission(p, id, tenant, record, price, unpriced)
  local most, budgeted, budget, tenant_budget = unpack(limits(p))
  if not most then return { 'unpublished' } end
  local now = now_ms()
  local deadline, run_at = record.deadlineAt, record.runAt
  if deadline and tonumber(deadline) <= now then return { 'overdue' } end
  if run_at and tonumber(run_at) > now then return { 'early', tostring(math.ceil(tonumber(run_at) - now)) } end
  local _, cap = tenant_limits(p, tenant)
  if cap > 0 then
    local own, parked = p .. ':in-flight:' .. tenant, p .. ':parked:' .. tenant
    redis.call('ZREMRANGEBYSCORE', own, '-inf', now)
    if redis.call('ZCARD', own) >= cap then
      redis.call('ZREM', p .. ':queue-order:' .. tenant, id)
      redis.call('ZADD', parked, record.turn or 0, id)
      redis.call('SADD', p .. ':parked', tenant)
      local first = redis.call('ZRANGE', own, 0, 0, 'WITHSCORES')[2]
      return { 'capped', tostring(math.ceil(math.max(1, math.min(${PARKED_MS}, tonumber(first) - now)))) }
    end
  end
  if tonumber(most) > 0 then
    redis.call('ZREMRANGEBYSCORE', p .. ':in-flight', '-inf', now)
    if redis.call('ZCARD', p .. ':in-flight') >= tonumber(most) then return { 'full' } end
  end
  if budgeted == '1' then
    tenant_budget = redis.call('HGET', p .. ':limits:budgets', tenant) or tenant_budget
    if price == nil then
      if unpriced ~= 'allow' and (budget ~= '' or tenant_budget ~= '') then return { 'unpriced' } end
    else
      local key = p .. ':spend:' .. math.floor(now / 86400000)
      local over = admission_over(p, key, '', budget, price) and 'over_day'
        or admission_over(p, key, ':' .. tenant, tenant_budget, price) and 'over_tenant_day'
      if over then
        redis.call('ZREM', p .. ':queue-order:' .. tenant, id)
        redis.call('ZADD', p .. ':over-budget', now, id)
        return { over, tostring((math.floor(now / 86400000) + 1) * 86400000 - now) }
      end
    end
  end
  return nil
end
`;

/** BullMQ's lowest priority. */
const LOWEST_PRIORITY = 2_097_151;

/**
 * The priority of the BullMQ job of a generation with that turn; one without a turn gets it when it is due. After more
 * than two million turns without an empty queue all further ones share the lowest, and run in the order they came.
 */
export const priorityOf = (turn: number | null): number =>
  turn === null ? 1 : Math.min(LOWEST_PRIORITY, Math.floor(turn) + 1);
