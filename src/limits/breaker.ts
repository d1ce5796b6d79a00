/**
 * Is the provider away? Calls that find nobody, or only errors, several in a row, stop the calls of their kind for all
 * replicas; then one goes out now and then as a probe, and the first that comes through lets everybody go on. Polls and
 * submits are told apart, since one may work while the other does not; so is each host of assets.
 *
 * Probes come after 1, 2, 4 … seconds, at most `probeMs` apart.
 */
import type { RedisConnection } from '../redis/connect.js';

export type Call = 'submit' | 'poll';
/** What a breaker stands before: a kind of call, a host that assets come from, or one that is notified. */
export type Target = Call | `asset@${string}` | `receiver@${string}`;

/** Failures count as in a row when no more than this lies between them. */
const IN_A_ROW_MS = 60_000;
/** While it is closed, Redis is asked this often whether it still is. */
const LOOK_MS = 1000;
/** One that nobody asks for any more is forgotten after a day. */
const FORGET_MS = 24 * 3_600_000;
/** So many targets are remembered as well in a process before all are asked for anew. */
const MAX_REMEMBERED = 1000;

/**
 * FAILED. KEYS 1 breaker · ARGV 1 failures in a row that open it · 2 ms that a failure counts
 * Returns 1 when it has opened now, 2 when it was open, 0 else.
 */
const FAILED = `
if redis.call('HEXISTS', KEYS[1], 'openAt') == 1 then return 2 end
if redis.call('HINCRBY', KEYS[1], 'failures', 1) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'openAt', now, 'probes', 0, 'probeAt', now + 1000)
redis.call('PEXPIRE', KEYS[1], ${FORGET_MS})
return 1
`;

/** No probe is further away than probes are apart, unless the clock jumped back: then one is due. */
export const PROBE_WAIT = `
local function probe_wait(probe_at, now, probe_ms)
  local wait = probe_at - now
  if wait > math.max(probe_ms, 1000) then return 0 end
  return math.max(0, wait)
end
`;

/**
 * PASS. KEYS 1 breaker · ARGV 1 longest ms between two probes
 * Returns -1 when it is closed, 0 for the one that is the probe, else the ms until the next probe.
 */
const PASS = `${PROBE_WAIT}
local open_at, probes, probe_at = unpack(redis.call('HMGET', KEYS[1], 'openAt', 'probes', 'probeAt'))
if not open_at then return -1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = probe_wait(tonumber(probe_at), now, tonumber(ARGV[1]))
if wait > 0 then return wait end
redis.call('HSET', KEYS[1], 'probes', probes + 1, 'probeAt', now + math.min(tonumber(ARGV[1]), 1000 * 2 ^ math.min(tonumber(probes), 20)))
redis.call('PEXPIRE', KEYS[1], ${FORGET_MS})
return 0
`;

export interface BreakerState {
  /** Since when calls are stopped, epoch ms; null while they are not. */
  readonly openAt: number | null;
  readonly probes: number;
  readonly probeAt: number | null;
}

export interface Breaker {
  /** A call found nobody or an error of the provider. Returns true when that opened the breaker. */
  failed(call: Target): Promise<boolean>;
  /**
   * A call was dealt with; `probe` when it went out to look. Returns true when that closed the breaker. Costs nothing
   * while all is well.
   */
  worked(call: Target, probe?: boolean): Promise<boolean>;
  /** For polls (submits are asked in the line): how long to wait, in ms; 0: go. `probe`: while it is open. */
  pass(call: Target): Promise<{ readonly waitMs: number; readonly probe: boolean }>;
  state(call: Target): Promise<BreakerState>;
  /** Closes both. */
  close(): Promise<void>;
}

export interface BreakerDeps {
  readonly redis: RedisConnection;
  readonly prefix: string;
  /** Failures in a row that open it. */
  readonly failures: number;
  readonly probeMs: number;
  readonly now: () => number;
}

interface Scripts {
  reelhaulBreakerFailed(...args: (string | number)[]): Promise<number>;
  reelhaulBreakerPass(...args: (string | number)[]): Promise<number>;
}

export function createBreaker({ redis, prefix, failures, probeMs, now }: BreakerDeps): Breaker {
  redis.defineCommand('reelhaulBreakerFailed', { lua: FAILED, numberOfKeys: 1 });
  redis.defineCommand('reelhaulBreakerPass', { lua: PASS, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  const keyOf = (call: Target) => `${prefix}:breaker:${call}`;
  /** Calls of this process that failed since one worked: only then is there anything to take back. */
  const troubled = new Set<Target>();
  /** Until when it is taken to be closed without asking. */
  const closedUntil = new Map<Target, number>();

  return {
    async failed(call) {
      troubled.add(call);
      closedUntil.delete(call);
      return (await scripts.reelhaulBreakerFailed(keyOf(call), failures, IN_A_ROW_MS)) === 1;
    },

    async worked(call, probe = false) {
      // A probe may be the first call of its process: others saw the failures.
      if (!troubled.delete(call) && !probe) return false;
      const wasOpen = await redis.hexists(keyOf(call), 'openAt');
      await redis.unlink(keyOf(call));
      return wasOpen === 1;
    },

    async pass(call) {
      if (now() < (closedUntil.get(call) ?? 0)) return { waitMs: 0, probe: false };
      const waitMs = await scripts.reelhaulBreakerPass(keyOf(call), probeMs);
      if (waitMs >= 0) troubled.add(call);
      else {
        if (closedUntil.size >= MAX_REMEMBERED) closedUntil.clear();
        closedUntil.set(call, now() + LOOK_MS);
      }
      return { waitMs: Math.max(0, waitMs), probe: waitMs === 0 };
    },

    async state(call) {
      const [openAt, probes, probeAt] = await redis.hmget(keyOf(call), 'openAt', 'probes', 'probeAt');
      return {
        openAt: openAt ? Number(openAt) : null,
        probes: Number(probes ?? 0),
        probeAt: probeAt ? Number(probeAt) : null,
      };
    },

    async close() {
      await redis.unlink(keyOf('submit'), keyOf('poll'));
    },
  };
}
