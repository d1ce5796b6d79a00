/**
 * The bill of a submit as Lua, for the script that changes records: money moves in the same step as the state, so that no
 * crash can come between the two. Amounts are whole millionths of the currency of the price table.
 *
 *   record   bill · price · spendDay           the bill of the present submit, and the day (UTC) it counts for
 *            priorBill · priorPrice · priorDay the one before, whose task nobody knows, when a second was accepted
 *            olderBills                        '<price>/<day> …' of those before that one that are still possible
 *   spend:<day>   possible · charged · possible:<tenant> · charged:<tenant>
 *
 * `possible` is what may have been billed (a submit under way, or an unconfirmed one) and stays until it is known.
 */

/** Days are kept for so long (400 of them). */
const KEEP_S = 400 * 86_400;

export const SPEND = `
local function spend_add(p, tenant, day, bill, amount)
  if bill ~= 'possible' and bill ~= 'charged' then return end
  local key = p .. ':spend:' .. day
  redis.call('HINCRBY', key, bill, amount)
  redis.call('HINCRBY', key, bill .. ':' .. tenant, amount)
  redis.call('EXPIRE', key, ${KEEP_S})
end

local function spend_today()
  return math.floor(redis.call('TIME')[1] / 86400)
end

-- Those that were published last hold for all; where none were, or Redis has lost them, each process keeps to its own.
local function spend_caps(p, tenant, most, tenant_most)
  local day, tenant_day = unpack(redis.call('HMGET', p .. ':limits', 'budget', 'tenantBudget'))
  if not day then return most, tenant_most end
  return day, redis.call('HGET', p .. ':limits:budgets', tenant) or tenant_day
end

local function spend_over(p, record, tenant, bill, price, most, tenant_most)
  if bill ~= 'possible' or price == '' or redis.call('HEXISTS', record, 'bill') == 1 then return nil end
  local key = p .. ':spend:' .. spend_today()
  local function over(cap, suffix)
    if cap == '' then return false end
    local spent = redis.call('HMGET', key, 'possible' .. suffix, 'charged' .. suffix)
    return (spent[1] or 0) + (spent[2] or 0) + price > tonumber(cap)
  end
  most, tenant_most = spend_caps(p, tenant, most, tenant_most)
  if over(most, '') then return -2 end
  if over(tenant_most, ':' .. tenant) then return -3 end
  return nil
end

-- Of the submits before, the oldest of which nobody knew whether it was accepted: it was.
local function spend_prior_charged(p, record, tenant)
  local prior, price, day, older = unpack(redis.call('HMGET', record, 'priorBill', 'priorPrice', 'priorDay', 'olderBills'))
  if older then
    price, day, older = string.match(older, '^(%d+)/(%d+) ?(.*)$')
    if older == '' then redis.call('HDEL', record, 'olderBills') else redis.call('HSET', record, 'olderBills', older) end
  elseif prior == 'possible' then redis.call('HDEL', record, 'priorBill', 'priorPrice', 'priorDay')
  else return nil end
  spend_add(p, tenant, day, 'possible', -price)
  spend_add(p, tenant, day, 'charged', price)
  return price, day
end

local function spend_bill(p, record, tenant, bill, price)
  local old, old_price, old_day = unpack(redis.call('HMGET', record, 'bill', 'price', 'spendDay'))
  if bill == 'closed' then
    redis.call('HDEL', record, 'bill', 'price', 'spendDay')
    -- One whose task is known comes to light no more.
    if not old or redis.call('HEXISTS', record, 'taskId') == 1 then return end
    local prior, prior_price, prior_day, older = unpack(redis.call('HMGET', record, 'priorBill', 'priorPrice', 'priorDay', 'olderBills'))
    if prior == 'possible' then
      redis.call('HSET', record, 'olderBills', (older and older .. ' ' or '') .. prior_price .. '/' .. prior_day)
    end
    redis.call('HSET', record, 'priorBill', old, 'priorPrice', old_price, 'priorDay', old_day)
    return
  end
  if not old and bill == 'charged' then
    -- Nothing of its own yet: it is the submit before that turned out to be accepted.
    local prior_price, prior_day = spend_prior_charged(p, record, tenant)
    if prior_price then
      redis.call('HSET', record, 'bill', bill, 'price', prior_price, 'spendDay', prior_day)
      return
    end
  end
  if not old and price == '' then return end
  if old then spend_add(p, tenant, old_day, old, -old_price)
  else old_price, old_day = price, spend_today() end
  if bill == 'none' then
    redis.call('HDEL', record, 'bill', 'price', 'spendDay')
  else
    spend_add(p, tenant, old_day, bill, old_price)
    redis.call('HSET', record, 'bill', bill, 'price', old_price, 'spendDay', old_day)
  end
end

local function spend_another(p, record, tenant)
  if spend_prior_charged(p, record, tenant) then return end
  local price, day = unpack(redis.call('HMGET', record, 'price', 'spendDay'))
  if price then spend_add(p, tenant, day, 'charged', price) end
end
`;
