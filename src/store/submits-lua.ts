/**
 * Lua that writes the list of submits (generation/submits.ts), and with it, in the same step, what is derived from it:
 *
 *   spend:<day>          possible · charged · possible:<tenant> · charged:<tenant>, in millionths
 *   in-flight            zset: <id>#<number of the submit>, by until when its task may live
 *   in-flight:<tenant>   the tenant's own of them
 */

/** Days of spend are kept for so long (400 of them). */
const KEEP_S = 400 * 86_400;

/** submits_write takes the texts before and after; it returns whether a slot became free, and whether money of today did. */
export const SUBMITS = `
local function submits_write(p, id, tenant, had_text, text)
  local before, after = cjson.decode(had_text), cjson.decode(text)
  local sums, freed, released = {}, false, 0
  local today = tostring(math.floor(now_ms() / 86400000))
  local function count(list, sign)
    for _, submit in ipairs(list) do
      if submit.price and (submit.bill == 'possible' or submit.bill == 'charged') then
        local name = math.floor(submit.at / 86400000) .. ' ' .. submit.bill
        sums[name] = (sums[name] or 0) + sign * submit.price
      end
    end
  end
  count(before, -1)
  count(after, 1)
  for name, amount in pairs(sums) do
    if amount ~= 0 then
      local day, bill = string.match(name, '^(%d+) (%a+)$')
      local key = p .. ':spend:' .. day
      if day == today then released = (released or 0) + amount end
      redis.call('HINCRBY', key, bill, string.format('%.0f', amount))
      redis.call('HINCRBY', key, bill .. ':' .. tenant, string.format('%.0f', amount))
      redis.call('EXPIRE', key, ${KEEP_S})
    end
  end
  for i = 1, math.max(#before, #after) do
    local had = before[i] and before[i].liveUntil
    local has = after[i] and after[i].liveUntil
    for _, slots in ipairs({ p .. ':in-flight', p .. ':in-flight:' .. tenant }) do
      if has and has ~= had then redis.call('ZADD', slots, string.format('%.0f', has), id .. '#' .. i)
      elseif had and not has then redis.call('ZREM', slots, id .. '#' .. i) end
    end
    if had and not has then freed = true end
  end
  return freed, released < 0
end
`;
