/**
 * Shares a fixed number of slots of this process among keys (tenants, hosts), by dynamic thresholds (Choudhury and
 * Hahne): a key may take a slot while it holds fewer than are free. One key alone gets half of them, k busy keys get
 * total/(k + 1) each, so a slot stays free for a key that has none. What is refused is told when to come again, one
 * after the other at the rate at which the key's slots come free, so that a long backlog does not spin.
 */
export interface FairSlots {
  /** Takes a slot under all these keys. Null: one of them has its share. */
  take(keys: readonly string[]): (() => void) | null;
  /** When to ask again, ms from now. Each call takes the next place. */
  waitMs(keys: readonly string[]): number;
}

const LONGEST_SPACING_MS = 50;
const LONGEST_WAIT_MS = 300_000;
/** Weight of the newest duration in the average. */
const NEWEST = 0.2;

interface Lane {
  used: number;
  averageMs: number;
  /** The last place that was given out. */
  lastAt: number;
}

export function createFairSlots(total: number, now: () => number): FairSlots {
  const lanes = new Map<string, Lane>();
  let used = 0;

  function laneOf(key: string): Lane {
    const known = lanes.get(key);
    if (known) return known;
    for (const [name, lane] of lanes) if (lane.used === 0 && lane.lastAt < now()) lanes.delete(name);
    const lane = { used: 0, averageMs: LONGEST_SPACING_MS, lastAt: 0 };
    lanes.set(key, lane);
    return lane;
  }

  return {
    take(keys) {
      const all = keys.map(laneOf);
      if (all.some((lane) => lane.used >= total - used)) return null;
      const tookAt = now();
      used += 1;
      for (const lane of all) lane.used += 1;
      return () => {
        used -= 1;
        for (const lane of all) {
          lane.used -= 1;
          lane.averageMs += NEWEST * (now() - tookAt - lane.averageMs);
        }
      };
    },

    waitMs(keys) {
      const places = keys.map((key) => {
        const lane = laneOf(key);
        const spacingMs = Math.min(Math.max(lane.averageMs / Math.max(lane.used, 1), 1), LONGEST_SPACING_MS);
        lane.lastAt = Math.min(Math.max(lane.lastAt, now()) + spacingMs, now() + LONGEST_WAIT_MS);
        return lane.lastAt - now();
      });
      return Math.ceil(Math.max(1, ...places));
    },
  };
}
