/** The result of a call: one script records it and decides what follows for all replicas. */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Report, ReportOutcome, Target } from './gate-contract.js';
import { DAY_MS, GATE, HOUR_MS, SLOW_DOWN } from './gate-lua.js';

/** This many different generations forbidden in a row mean that the key is refused, not their requests (provider notes). */
const FORBIDDEN_IN_A_ROW = 3;
/** A generation that is forbidden this often as a probe is rejected, whatever the others get. */
const PROBES_OF_ITS_OWN = 3;
/** Failures count as in a row when no more than this lies between them. */
const IN_A_ROW_MS = 60_000;
/** Another replica that called within this time without a failure shows that only the failing replica is affected. */
const OTHERS_MS = 10_000;
const SLOW_BASE_MS = 1000;
const SLOW_MAX_MS = 60_000;
/** A 429 this soon after a hold continues the row of 429s. */
const STREAK_MS = 2000;
/** The most generations whose refusals are remembered. */
const MAX_REFUSALS = 10_000;
const MAX_HOSTS = 1000;

/** The outage breaker. */
const BREAKER = `
local function others_call(replica)
  local function lately(at) return at and at <= now and now - at < ${OTHERS_MS} end
  return (gate.by and gate.by ~= replica and lately(gate.byAt))
    or (gate.otherBy and gate.otherBy ~= replica and lately(gate.otherAt))
end

local function away()
  if gate.openAt then
    answer.waitMs = ms_until(gate.awayProbeAt, math.max(arg.awayProbeMs, 1000))
    return
  end
  local failures, by = gate.failures or 0, gate.failedBy
  if gate.failedAt and now - gate.failedAt > ${IN_A_ROW_MS} then failures, by = 0, nil end
  failures = failures + 1
  if by == nil then by = arg.replica elseif by ~= arg.replica then by = 'several' end
  redis.call('HSET', KEYS[1], 'failures', failures, 'failedAt', now, 'failedBy', by)
  if failures < arg.failures then return end
  if by ~= 'several' and others_call(by) then
    answer.alone = true
    return
  end
  redis.call('HDEL', KEYS[1], 'failures', 'failedAt', 'failedBy')
  redis.call('HSET', KEYS[1], 'openAt', now, 'probes', 0, 'awayProbeAt', now + 1000)
  answer.opened, answer.waitMs = 'away', 1000
end

local function is_there()
  if gate.failures then redis.call('HDEL', KEYS[1], 'failures', 'failedAt', 'failedBy') end
  -- What left before the outage began says nothing of it.
  if not gate.openAt or (not arg.probe and now - arg.leftAgoMs < gate.openAt) then return end
  redis.call('HDEL', KEYS[1], 'openAt', 'probes', 'awayProbeAt', 'awayProbeBy', 'lookedAt')
  answer.closed = true
end
`;

/** 429. Of calls that come back together the longest `Retry-After` holds, in whatever order they are reported. */
const HOLD = `
local function rate_limited()
  local said = arg.result.retryAfterMs and math.min(arg.result.retryAfterMs, ${HOUR_MS})
  local hold = ms_until(gate.holdUntil, ${HOUR_MS})
  if hold > 0 then
    if said and said > hold then
      hold = said
      redis.call('HSET', KEYS[1], 'holdUntil', now + hold)
    end
  else
    local streak = 1
    if ms_until(gate.streakUntil, 4 * ${HOUR_MS}) > 0 then streak = gate.streak + 1 end
    local backoff = math.min(${SLOW_MAX_MS}, ${SLOW_BASE_MS} * 2 ^ math.min(streak - 1, 20))
    hold = math.max(1, math.floor(said or backoff * (0.5 + arg.dice / 2)))
    redis.call('HSET', KEYS[1], 'holdUntil', now + hold, 'streak', streak, 'streakUntil', now + 3 * hold + ${STREAK_MS})
    answer.opened = 'rate_limited'
  end
  if arg.call then slow_down(hold) end
  answer.waitMs = hold
end
`;

/** Refused key, exhausted quota, forbidden requests, misrouted answers. `own`: this generation was refused before. */
const REFUSE = `
local function read_own()
  local text = redis.call('HGET', KEYS[3], arg.generationId)
  if not text then return { refusals = 0, probes = 0, others = false } end
  local refusals, probes, accepted = string.match(text, '^(%d+) (%d+) (%d+)$')
  return { refusals = tonumber(refusals), probes = tonumber(probes), accepted = tonumber(accepted),
    others = (gate.accepted or 0) > tonumber(accepted) }
end

local function note_own(own)
  own.refusals = own.refusals + 1
  if gate.refusedAt and arg.probe then own.probes = own.probes + 1 end
  if redis.call('HLEN', KEYS[3]) >= ${MAX_REFUSALS} then redis.call('UNLINK', KEYS[3]) end
  -- From now on it counts how many are accepted.
  if not gate.accepted then redis.call('HSET', KEYS[1], 'accepted', 0) end
  redis.call('HSET', KEYS[3], arg.generationId,
    string.format('%d %d %d', own.refusals, own.probes, own.accepted or gate.accepted or 0))
  redis.call('PEXPIRE', KEYS[3], ${DAY_MS})
end

local function refuse(reason)
  local why = reason == 'misrouted' and 'misrouted' or 'refused'
  local before = gate.refusedAt and (gate.refusedWhy == 'misrouted' and 'misrouted' or 'refused')
  if why ~= before then answer.opened = why end
  if not before then redis.call('HSET', KEYS[1], 'refusedAt', now, 'probeAt', now + arg.probeMs) end
  redis.call('HSET', KEYS[1], 'refusedWhy', reason)
  -- Behind the others: two of them probe first.
  answer.waitMs = 2 * arg.probeMs
end

local function end_refusal()
  if gate.forbidden then redis.call('HDEL', KEYS[1], 'forbidden', 'forbiddenAt') end
  if not gate.refusedAt then return end
  redis.call('HDEL', KEYS[1], 'refusedAt', 'refusedWhy', 'probeAt')
  gate.refusedAt = nil
  answer.closed = true
end

local function refused()
  local reason, own = arg.result.reason, read_own()
  note_own(own)
  if reason == 'quota' and not gate.refusedAt and own.others then
    -- Others are accepted: the account is too low for this one alone.
    local backoff = math.min(${HOUR_MS}, arg.probeMs * 2 ^ math.min(own.refusals - 1, 20))
    answer.waitMs = math.floor(backoff * (0.5 + arg.dice / 2))
    return
  end
  refuse(reason)
end

local function forbidden()
  -- The API itself answered.
  if gate.refusedWhy == 'misrouted' then end_refusal() end
  local own = read_own()
  local probes = own.probes + ((gate.refusedAt and arg.probe) and 1 or 0)
  if own.others or probes >= ${PROBES_OF_ITS_OWN} then
    redis.call('HDEL', KEYS[3], arg.generationId)
    answer.verdict = 'reject'
    return
  end
  if gate.refusedAt then
    note_own(own)
    refuse(gate.refusedWhy)
    return
  end
  local row = gate.forbidden or ''
  if gate.forbiddenAt and now - gate.forbiddenAt > ${DAY_MS} then row = '' end
  if not string.find(row, arg.generationId, 1, true) then row = row .. arg.generationId .. ' ' end
  local _, distinct = string.gsub(row, ' ', '')
  redis.call('HSET', KEYS[1], 'forbidden', row, 'forbiddenAt', now)
  if distinct < ${FORBIDDEN_IN_A_ROW} then
    answer.verdict = 'reject'
    return
  end
  note_own(own)
  refuse('forbidden')
end
`;

/**
 * REPORT. arg: generationId · probe · leftAgoMs · result · target · call · replica · failures in a row that open the breaker ·
 * probeMs · awayProbeMs · dice · rate
 * Returns JSON: a ReportOutcome, and `alone` when only this replica fails.
 */
const REPORT = `${GATE}${SLOW_DOWN}
local gate = hash(KEYS[1])
local answer = { opened = cjson.null, closed = false, verdict = 'requeue', waitMs = 0, alone = false }
${BREAKER}${HOLD}${REFUSE}
local kind = arg.result.kind
if kind == 'away' then away() else is_there() end
if kind == 'accepted' then
  if gate.streak then redis.call('HDEL', KEYS[1], 'streak', 'streakUntil') end
  if gate.accepted and redis.call('EXISTS', KEYS[3]) == 0 then redis.call('HDEL', KEYS[1], 'accepted')
  elseif gate.accepted then
    redis.call('HINCRBY', KEYS[1], 'accepted', 1)
    redis.call('HDEL', KEYS[3], arg.generationId)
  end
  end_refusal()
elseif kind == 'rejected' then
  if gate.accepted then redis.call('HDEL', KEYS[3], arg.generationId) end
  if gate.refusedWhy ~= 'quota' then end_refusal() end
elseif kind == 'rateLimited' then rate_limited()
elseif kind == 'refused' then refused()
elseif kind == 'misrouted' then
  note_own(read_own())
  refuse('misrouted')
elseif kind == 'forbidden' then forbidden() end

if not arg.call then
  -- A host: its gate is there only while it says something, for a day, and there are not too many of them.
  if kind ~= 'away' and kind ~= 'rateLimited' and ms_until(gate.holdUntil, ${HOUR_MS}) == 0 then
    redis.call('UNLINK', KEYS[1])
    redis.call('ZREM', KEYS[4], KEYS[1])
  else
    redis.call('PEXPIRE', KEYS[1], ${DAY_MS})
    redis.call('ZADD', KEYS[4], now, KEYS[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ${DAY_MS})
    redis.call('PEXPIRE', KEYS[4], ${DAY_MS})
    if redis.call('ZCARD', KEYS[4]) > ${MAX_HOSTS} then
      local oldest = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
      redis.call('ZREM', KEYS[4], oldest)
      redis.call('UNLINK', oldest)
    end
  end
end
return cjson.encode(answer)
`;

interface Answer extends ReportOutcome {
  /** This replica fails while others do not. */
  readonly alone: boolean;
}

export interface ReportDeps {
  readonly redis: RedisConnection;
  readonly keysOf: (target: Target) => readonly string[];
  readonly settings: Readonly<Record<string, unknown>>;
  readonly dice: () => number;
}

export function createReport({ redis, keysOf, settings, dice }: ReportDeps) {
  const run = defineScript<string>(redis, 'reelhaulGateReport', REPORT);
  return async (target: Target, report: Report): Promise<Answer> => {
    const { retryAfterMs = null, ...result } = { retryAfterMs: undefined, ...report.result };
    const argument = {
      ...settings,
      ...report,
      // Absent instead of null: in a script null is a value.
      result: retryAfterMs === null ? result : { ...result, retryAfterMs },
      leftAgoMs: Math.min(Math.max(0, report.leftAgoMs), HOUR_MS),
      ...(target === 'submit' || target === 'poll' ? { call: target } : {}),
      dice: dice(),
    };
    return JSON.parse(await run(keysOf(target), argument)) as Answer;
  };
}
