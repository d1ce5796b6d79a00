/**
 * May a call leave now? One script checks every hold and takes a call of the rate in the same step. A call whose turn is near
 * waits in this process, where one call asks for all of its kind; other calls go back to their queue.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Pass, PassOptions, Target, WaitReason } from './gate-contract.js';
import { DAY_MS, GATE, HOUR_MS, PACE, SLOWEST } from './gate-lua.js';

/** At least one of ten calls is left to the kind that does not go first. */
const TURNS = 9;
/** A call waits in its process while at most this many intervals, or this much time, lie before its turn. */
const NEAR_CALLS = 8;
const NEAR_MS = 500;
const MAX_WAIT_MS = 5000;
/** The shortest hold of a queue: with a high rate, shorter ones would only cause more questions. */
const MIN_HOLD_MS = 50;
/** When a probe is due, a generation that was refused before lets the others go first for this time. */
const OTHERS_FIRST_MS = 1000;
/** For this time after an answer to a free call, the provider counts as reachable. */
const LOOKED_MS = 60_000;
/** A kind that waits asks again within this time after its turn, also on a busy machine. */
const ASK_AGAIN_MS = 500;
const SEEN_EVERY_MS = 1000;

/**
 * TAKE. Takes a call of the rate (generic cell rate algorithm, ITU-T I.371). `arg.waiting` calls of this process wait
 * behind this one. Returns 0 when it may leave now, else the ms until it may be asked again.
 */
const TAKE = `${PACE}
local function take(call)
  if interval == 0 then return 0 end
  local first = call == (rate.first or arg.rate.first)
  local mine, other = first and 'firstUntil' or 'secondUntil', first and 'secondUntil' or 'firstUntil'
  local longest = math.max(interval, ${1000 / SLOWEST})
  local exact = time[1] * 1000 + time[2] / 1000
  local tat, passed, other_until = rate.tat or 0, rate.passed or 0, rate[other] or 0
  -- Nothing sets these further ahead, except a time of Redis that jumped back: then one call is due, and no burst.
  if other_until > exact + 3 * longest + ${MAX_WAIT_MS} then other_until = 0 end
  local slack = (burst - 1) * interval
  if tat > exact + slack + longest then tat = exact + slack end
  local others_turn = other_until > exact and (first == (passed >= ${TURNS}))
  local granted = not others_turn and tat - slack <= exact
  if granted then
    tat = math.max(tat, exact) + interval
    redis.call('HSET', KEYS[2], 'tat', string.format('%.3f', tat), 'passed', first and passed + 1 or 0)
  end
  local wait = math.max(granted and 0 or interval / 4, tat - slack - exact)
  if granted and arg.waiting == 0 then redis.call('HDEL', KEYS[2], mine)
  else redis.call('HSET', KEYS[2], mine, string.format('%.3f', exact + wait + math.max(2 * interval, ${ASK_AGAIN_MS}))) end
  return granted and 0 or math.max(1, wait)
end
`;

/**
 * PASS. arg: generationId · call ('submit', 'poll', or absent when no rate holds for it) · replica · probeMs between
 * probes of a refused key · awayProbeMs at most between probes of an outage · look: a free call can be made first · looked:
 * it was made for this very pass, and answered · waiting · rate { max, windowMs, first }
 * Returns JSON: { kind 'go', probe, calm, free (nothing holds, nothing limits) }, { kind 'look' } (make the free call), { kind 'turn', waitMs, interval } (the
 * rate alone holds it), or { kind 'wait', waitMs, why, holds }.
 */
const PASS = `
-- A host has a gate only while it says something.
if not cjson.decode(ARGV[1]).call and redis.call('EXISTS', KEYS[1]) == 0 then
  return cjson.encode({ kind = 'go', probe = false, calm = true, free = true })
end
${GATE}${TAKE}
local gate = hash(KEYS[1])
local function wait(ms, why, holds)
  return cjson.encode({ kind = 'wait', waitMs = math.ceil(math.max(1, ms)), why = why, holds = holds or 'all' })
end

-- The last two replicas that called: they show when a replica fails alone (gate-report.ts).
if arg.call or next(gate) then
  if gate.by ~= arg.replica then
    if gate.by then redis.call('HSET', KEYS[1], 'otherBy', gate.by, 'otherAt', gate.byAt) end
    redis.call('HSET', KEYS[1], 'by', arg.replica, 'byAt', now)
  elseif now < gate.byAt or now - gate.byAt > ${SEEN_EVERY_MS} then redis.call('HSET', KEYS[1], 'byAt', now) end
end

local held = ms_until(gate.holdUntil, ${HOUR_MS})
if held > 0 then return wait(held, 'rate_limited') end

if gate.refusedAt then
  local why = gate.refusedWhy == 'misrouted' and 'misrouted' or 'refused'
  local probe_ms = ms_until(gate.probeAt, arg.probeMs)
  if probe_ms > 0 then return wait(probe_ms, why) end
  local others_ms = ms_until(gate.probeAt + math.min(${OTHERS_FIRST_MS}, arg.probeMs / 2), arg.probeMs)
  if others_ms > 0 and redis.call('HEXISTS', KEYS[3], arg.generationId) == 1 then
    return wait(others_ms, why, 'generation')
  end
end

local look, probe_of_outage = false, false
if gate.openAt and not (arg.looked and gate.awayProbeBy == arg.generationId) then
  local probe_ms = ms_until(gate.awayProbeAt, math.max(arg.awayProbeMs, 1000))
  if probe_ms > 0 then return wait(probe_ms, 'away') end
  probe_of_outage = true
  look = arg.look and (not gate.lookedAt or math.abs(now - gate.lookedAt) > ${LOOKED_MS} + 2 * interval)
end
if gate.openAt and arg.looked then redis.call('HSET', KEYS[1], 'lookedAt', now) end

local turn_ms = arg.call and take(look and 'poll' or arg.call) or 0
if turn_ms > 0 then return cjson.encode({ kind = 'turn', waitMs = turn_ms, interval = interval }) end

if probe_of_outage then
  local next_ms = math.min(arg.awayProbeMs, 1000 * 2 ^ math.min(gate.probes or 0, 20))
  redis.call('HSET', KEYS[1], 'probes', (gate.probes or 0) + 1, 'awayProbeAt', now + next_ms, 'awayProbeBy', arg.generationId)
  if look then return cjson.encode({ kind = 'look' }) end
end
if gate.refusedAt then redis.call('HSET', KEYS[1], 'probeAt', now + arg.probeMs) end
if not arg.call and next(gate) then redis.call('PEXPIRE', KEYS[1], ${DAY_MS}) end
local calm = not (gate.openAt or gate.failures or gate.refusedAt or gate.accepted or gate.forbidden
  or ms_until(gate.streakUntil, 4 * ${HOUR_MS}) > 0)
return cjson.encode({ kind = 'go', probe = (gate.openAt or gate.refusedAt) and true or false, calm = calm,
  free = calm and interval == 0 })
`;

interface Turn {
  readonly kind: 'turn';
  readonly waitMs: number;
  readonly interval: number;
}

type Answer =
  | { readonly kind: 'go'; readonly probe: boolean; readonly calm: boolean; readonly free: boolean }
  | { readonly kind: 'look' }
  | Turn
  | {
      readonly kind: 'wait';
      readonly waitMs: number;
      readonly why: WaitReason;
      readonly holds: 'all' | 'generation';
    };

/** Calls of one kind that wait for their turn in this process, first come first served. */
interface Line {
  waiting: number;
  last: Promise<unknown>;
  /** Between two calls of the rate, as last answered. */
  intervalMs: number;
}

export interface PassDeps {
  readonly redis: RedisConnection;
  readonly keysOf: (target: Target) => readonly string[];
  /** The settings that the script wants, without what a single call adds. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Ends every wait: this process stops. */
  readonly stopping: AbortSignal;
  /** The free call before a probe of an outage failed. Returns the ms until the next probe. */
  readonly onStillAway: (target: Target, generationId: string) => Promise<number>;
}

/** `calm`: the gate remembers nothing that a plain answer would end. `free`: nothing limits it at all. */
export type CalmPass = Pass & { readonly calm?: boolean; readonly free?: boolean };

export function createPass(deps: PassDeps): (target: Target, options: PassOptions) => Promise<CalmPass> {
  const { redis, keysOf, settings, stopping, onStillAway } = deps;
  const run = defineScript<string>(redis, 'reelhaulGatePass', PASS);
  const newLine = (): Line => ({ waiting: 0, last: Promise.resolve(), intervalMs: 0 });
  // No rate holds for hosts: their line stays empty.
  const lines = { submit: newLine(), poll: newLine(), host: newLine() };
  const lineOf = (target: Target) => lines[target === 'submit' || target === 'poll' ? target : 'host'];

  async function ask(target: Target, { generationId, look }: PassOptions, looked: boolean): Promise<Answer> {
    const line = lineOf(target);
    const argument = {
      ...settings,
      generationId,
      ...(line === lines.host ? {} : { call: target }),
      look: look !== undefined && !looked,
      looked,
      waiting: Math.max(0, line.waiting - 1),
    };
    const answer = JSON.parse(await run(keysOf(target), argument)) as Answer;
    if (answer.kind === 'turn') line.intervalMs = answer.interval;
    return answer;
  }

  /** Asks until the call may leave, something else than the rate holds it, or its turn is too far away. */
  async function takeTurn(
    target: Target,
    options: PassOptions,
    signal: AbortSignal,
    looked: boolean,
  ): Promise<Exclude<Answer, Turn>> {
    const line = lineOf(target);
    if (line.waiting === 0) {
      const answer = await ask(target, options, looked);
      if (answer.kind !== 'turn') return answer;
    }
    if (isFar(line, line.waiting * line.intervalMs)) return tooFar(line.waiting * line.intervalMs);
    const begunAt = performance.now();
    return inLine(line, signal, async () => {
      for (;;) {
        if (signal.aborted) return stopped;
        const answer = await ask(target, options, looked);
        if (answer.kind !== 'turn') return answer;
        if (isFar(line, performance.now() - begunAt + answer.waitMs)) return tooFar(answer.waitMs);
        await pause(answer.waitMs, signal);
      }
    });
  }

  return async (target, options) => {
    const signal = AbortSignal.any([options.signal, stopping]);
    for (let looked = false; ; looked = true) {
      if (signal.aborted) return stopped;
      const answer = await takeTurn(target, options, signal, looked);
      if (answer.kind !== 'look') return answer;
      if (options.look === undefined || (await options.look())) continue;
      if (signal.aborted) return stopped;
      const waitMs = await onStillAway(target, options.generationId);
      return { kind: 'wait', waitMs: Math.max(1, waitMs), why: 'away', holds: 'all' };
    }
  };
}

const stopped = { kind: 'wait', waitMs: 0, why: 'stopped', holds: 'generation' } as const;

const isFar = ({ intervalMs }: Line, aheadMs: number) =>
  aheadMs > Math.min(MAX_WAIT_MS, Math.max(NEAR_MS, NEAR_CALLS * intervalMs));

/** The queue is held for about half of the wait: the calls that wait here use the turns until then. */
const tooFar = (aheadMs: number) =>
  ({
    kind: 'wait',
    waitMs: Math.max(MIN_HOLD_MS, Math.round(Math.max(aheadMs / 2, aheadMs - MAX_WAIT_MS / 2))),
    why: 'rate',
    holds: 'all',
  }) as const;

/** Runs `work` when all earlier calls have left the line, or the signal ends the wait. */
async function inLine<T>(line: Line, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const before = line.last;
  let leave = () => {};
  const left = new Promise<void>((resolve) => (leave = resolve));
  line.last = Promise.all([before, left]);
  line.waiting += 1;
  try {
    await Promise.race([before, aborted(signal)]);
    return await work();
  } finally {
    line.waiting -= 1;
    leave();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0 && !signal.aborted) await sleep(ms, undefined, { signal }).catch(() => {});
}
