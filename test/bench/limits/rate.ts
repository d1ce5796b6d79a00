/** Four worker processes against a provider that answers 429 above a limit, for submits and polls together. */
import { image, isOver, openGround, sayStates, type Row } from './ground.js';

const LIMIT = { max: 200, windowMs: 5000 };

/** `told`: reelhaul knows the limit; else it finds out by being refused. */
export async function runRate(generations: number, told: boolean): Promise<Row[]> {
  const ground = await openGround(
    { taskDurationMs: 2000, rateLimit: { ...LIMIT, polls: true } },
    told ? { PROVIDER_RATE_MAX: String(LIMIT.max), PROVIDER_RATE_WINDOW_MS: String(LIMIT.windowMs) } : {},
  );
  try {
    ground.employ(4);
    const beganAt = Date.now();
    await ground.enqueue(
      Array.from({ length: generations }, (_, i) => ({ request: { prompt: `rate ${i}`, image } })),
    );
    const counts = await ground.until(isOver, 300_000);
    const tookMs = Date.now() - beganAt;
    const { totals } = ground.simulator.ledger();
    const refused = totals.rateLimited + totals.rateLimitedPolls;
    const allowed = (LIMIT.max * tookMs) / LIMIT.windowMs;
    return [
      [
        'limit',
        `${LIMIT.max} calls in ${LIMIT.windowMs / 1000} s, ${told ? 'configured' : 'not configured'}`,
      ],
      ['ended as', sayStates(counts)],
      [
        'calls',
        `${totals.calls} in ${(tookMs / 1000).toFixed(1)} s: ${((100 * totals.calls) / allowed).toFixed(0)} % of what was allowed`,
      ],
      [
        'most calls in any window',
        `${totals.maxCallsInWindow}, ${((100 * totals.maxCallsInWindow) / LIMIT.max).toFixed(1)} % of the limit`,
      ],
      ['answered 429', refused],
      ['tasks per generation (max)', totals.maxTasksPerGeneration],
    ];
  } finally {
    await ground.close();
  }
}
