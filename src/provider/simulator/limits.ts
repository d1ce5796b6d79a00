/** The provider's own limits: how many submits it admits in a window, how many tasks it runs at once. */

export interface RateLimit {
  readonly max: number;
  readonly windowMs: number;
}

export interface Limiter {
  /** Null when the submit is admitted (and counted); else how long to wait, in ms, null where nothing is said. */
  refuse(nowMs: number, tasksInFlight: number): { readonly retryAfterMs: number | null } | null;
  clear(): void;
}

/** Null means without limit. Refused submits do not count, so that a client that keeps knocking is not locked out. */
export function createLimiter(rateLimit: RateLimit | null, maxInFlight: number | null): Limiter {
  let admittedAt: number[] = [];
  return {
    refuse(nowMs, tasksInFlight) {
      if (maxInFlight !== null && tasksInFlight >= maxInFlight) return { retryAfterMs: null };
      if (rateLimit !== null) {
        admittedAt = admittedAt.filter((at) => at > nowMs - rateLimit.windowMs);
        const oldest = admittedAt[0];
        if (oldest !== undefined && admittedAt.length >= rateLimit.max) {
          return { retryAfterMs: oldest + rateLimit.windowMs - nowMs };
        }
        admittedAt.push(nowMs);
      }
      return null;
    },
    clear() {
      admittedAt = [];
    },
  };
}
