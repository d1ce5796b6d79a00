/** The provider's own limits: how many submits it admits in a window, how many tasks it runs at once. */

export interface RateLimit {
  readonly max: number;
  readonly windowMs: number;
  /** Polls count as well, and are refused alike. Default: submits only. */
  readonly polls?: boolean;
}

export interface Limiter {
  /** Null when the submit is admitted (and counted); else how long to wait, in ms, null where nothing is said. */
  refuse(nowMs: number, tasksInFlight: number): { readonly retryAfterMs: number | null } | null;
  /** The same for a poll. */
  refusePoll(nowMs: number): { readonly retryAfterMs: number } | null;
  clear(): void;
}

/** Null means without limit. Refused submits do not count, so that a client that keeps trying is not locked out. */
export function createLimiter(rateLimit: RateLimit | null, maxInFlight: number | null): Limiter {
  let admittedAt: number[] = [];

  function refuseCall(nowMs: number): { readonly retryAfterMs: number } | null {
    if (rateLimit === null) return null;
    admittedAt = admittedAt.filter((at) => at > nowMs - rateLimit.windowMs);
    const oldest = admittedAt[0];
    if (oldest !== undefined && admittedAt.length >= rateLimit.max)
      return { retryAfterMs: oldest + rateLimit.windowMs - nowMs };
    admittedAt.push(nowMs);
    return null;
  }

  return {
    refuse(nowMs, tasksInFlight) {
      if (maxInFlight !== null && tasksInFlight >= maxInFlight) return { retryAfterMs: null };
      return refuseCall(nowMs);
    },
    refusePoll: (nowMs) => (rateLimit?.polls ? refuseCall(nowMs) : null),
    clear() {
      admittedAt = [];
    },
  };
}
