/**
 * One gate in front of every call: `pass` says whether a call may leave now, `report` takes its result. It promises:
 *
 * - a 429 holds the calls of its kind for all replicas, and afterwards calls begin slowly;
 * - submits and polls of all replicas together keep to the call rate;
 * - while the provider is away, refuses the key, or something else answers in its place, only probes leave;
 * - a generation that is itself refused holds the others for one probe interval at most;
 * - time is that of Redis, and without an answer of Redis nothing leaves.
 */
import { randomUUID } from 'node:crypto';
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from '../store/keys.js';
import { createAlone } from './gate-alone.js';
import { GATE, HOUR_MS, PACE } from './gate-lua.js';
import { createPass } from './gate-pass.js';
import { createReport } from './gate-report.js';
import type { CallResult, Gate, GateOverview, Report, ReportOutcome, Target } from './gate-contract.js';

export type * from './gate-contract.js';

/** The most targets that a process remembers; beyond that it forgets all and asks again. */
const MAX_REMEMBERED = 1000;
const ALONE_SNOOZE_MS = 1000;
/**
 * Polls and downloads are many and free: while nothing limits or holds them, Redis is asked this often whether something
 * does. A submit always asks.
 */
const FREE_FOR_MS = 1000;
/** The results when all is well. */
const PLAIN: ReadonlySet<CallResult['kind']> = new Set(['answered', 'accepted', 'rejected']);

/** LOOK. As PASS, of submits; KEYS 4 gate of polls instead. Returns JSON: a GateOverview. */
const LOOK = `${GATE}${PACE}
local gates = { submit = hash(KEYS[1]), poll = hash(KEYS[4]) }
local answer = { refused = false, misrouted = false, holdMs = {}, slowedTo = per_second or cjson.null, breaker = {} }
for call, gate in pairs(gates) do
  answer.holdMs[call] = ms_until(gate.holdUntil, ${HOUR_MS})
  answer.breaker[call] = { openAt = gate.openAt or cjson.null, probes = gate.probes or 0,
    probeAt = gate.awayProbeAt or cjson.null }
end
if gates.submit.refusedAt then
  answer[gates.submit.refusedWhy == 'misrouted' and 'misrouted' or 'refused'] = true
end
return cjson.encode(answer)
`;

/**
 * RESUME. KEYS 1 gate of submits · 2 rate · 3 refusals · 4 gates of hosts · 5 gate of polls
 * Returns the ids of generations that were refused themselves.
 */
const RESUME = `
local refused = redis.call('HKEYS', KEYS[3])
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[5])
redis.call('HDEL', KEYS[2], 'pace', 'paceAt', 'slowedAt')
for _, key in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do redis.call('UNLINK', key) end
redis.call('UNLINK', KEYS[4])
return refused
`;

export interface GateSettings {
  /** Calls per window; null: no limit but what a 429 teaches. */
  readonly rate: {
    readonly max: number | null;
    readonly windowMs: number;
    readonly first: 'submit' | 'poll';
  };
  /** Failures in a row that open the breaker, and the longest time between two probes of an outage. */
  readonly failures: number;
  readonly awayProbeMs: number;
  /** Between two probes of a refused key. */
  readonly refusedProbeMs: number;
}

export interface GateDeps {
  readonly redis: RedisConnection;
  readonly keys: Pick<Keys, 'gate' | 'gateRefusals' | 'gateHosts'>;
  readonly settings: GateSettings;
  /** A number in [0, 1). */
  readonly dice: () => number;
}

export function createGate({ redis, keys, settings, dice }: GateDeps): Gate {
  const lookAt = defineScript<string>(redis, 'reelhaulGateLook', LOOK);
  const forget = defineScript<string[]>(redis, 'reelhaulGateResume', RESUME);
  const { refusedProbeMs: probeMs, awayProbeMs, failures, rate } = settings;
  const limits = { max: rate.max ?? 0, windowMs: rate.windowMs, first: rate.first };
  const argument = { replica: randomUUID(), probeMs, awayProbeMs, failures, rate: limits };
  const keysOf = (target: Target) =>
    [keys.gate(target), keys.gate('rate'), keys.gateRefusals, keys.gateHosts] as const;
  const stop = new AbortController();
  /** Targets of which a call failed lately, here or elsewhere: only then does a plain answer say something new. */
  const uneasy = new Set<Target>();
  const alone = createAlone();
  /** By `performance.now()`. */
  const freeUntil = new Map<Target, number>();

  const write = createReport({ redis, keysOf, settings: argument, dice });
  const ask = createPass({
    redis,
    keysOf,
    settings: argument,
    stopping: stop.signal,
    onStillAway: async (target, generationId) =>
      (await report(target, { generationId, probe: true, leftAgoMs: 0, result: { kind: 'away' } })).waitMs,
  });

  async function report(target: Target, told: Report): Promise<ReportOutcome> {
    const away = told.result.kind === 'away';
    if (!away) alone.end(target);
    if (PLAIN.has(told.result.kind) && !told.probe && !uneasy.has(target)) return NOTHING;
    if (PLAIN.has(told.result.kind)) uneasy.delete(target);
    else note(target);
    freeUntil.delete(target);
    const { alone: isAlone, ...outcome } = await write(target, told);
    if (isAlone) alone.begin(target);
    return outcome;
  }

  function note(target: Target): void {
    if (uneasy.size >= MAX_REMEMBERED) uneasy.clear();
    uneasy.add(target);
  }

  return {
    report,

    async pass(target, options) {
      if (!(await alone.turn(target, [options.signal, stop.signal])))
        return {
          kind: 'wait',
          waitMs: options.signal.aborted || stop.signal.aborted ? 0 : ALONE_SNOOZE_MS,
          why: 'away',
          holds: 'generation',
        };
      if (performance.now() < (freeUntil.get(target) ?? 0)) return { kind: 'go', probe: false };
      const { calm = true, free = false, ...pass } = await ask(target, options);
      if (!calm || pass.kind === 'wait') note(target);
      if (freeUntil.size >= MAX_REMEMBERED) freeUntil.clear();
      if (free && target !== 'submit') freeUntil.set(target, performance.now() + FREE_FOR_MS);
      else freeUntil.delete(target);
      return pass;
    },

    async overview() {
      const [submit, ...others] = keysOf('submit');
      const answer = await lookAt([submit, ...others.slice(0, 2), keys.gate('poll')], argument);
      return JSON.parse(answer) as GateOverview;
    },

    async resume() {
      freeUntil.clear();
      return forget([...keysOf('submit'), keys.gate('poll')]);
    },

    async publish() {
      freeUntil.clear();
      await redis.hset(keys.gate('rate'), limits);
    },

    stop: () => stop.abort(),
  };
}

const NOTHING: ReportOutcome = { opened: null, closed: false, verdict: 'requeue', waitMs: 0 };
