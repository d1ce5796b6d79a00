/** The provider is away for minutes while much is under way: what it is asked, what it costs, how soon all goes on. */
import { setTimeout as wait } from 'node:timers/promises';
import { image, isOver, openGround, sayStates, type Row } from './ground.js';

export async function runOutage(outageMs: number): Promise<Row[]> {
  const ground = await openGround(
    { taskDurationMs: 5000 },
    { MAX_IN_FLIGHT: '100', SUBMIT_5XX_POLICY: 'retry' },
  );
  try {
    ground.employ(4);
    await ground.enqueue(
      Array.from({ length: 400 }, (_, i) => ({ request: { prompt: `outage ${i}`, image } })),
    );
    await ground.simulator.waitUntil(({ totals }) => totals.tasksCreated >= 150, 60_000);
    // Answered, so that each arrival is counted.
    await ground.simulator.startOutage({ mode: '503', durationMs: outageMs });
    const begun = ground.simulator.ledger().totals;
    const submitsBegun = begun.submits;
    await wait(Math.max(0, outageMs - 500));
    const last = ground.simulator.ledger().totals;
    await ground.simulator.endOutage();
    const endedAt = Date.now();
    await ground.simulator.waitUntil(({ totals }) => totals.tasksCreated > last.tasksCreated, 60_000);
    const resumedMs = Date.now() - endedAt;
    const counts = await ground.until(isOver, 120_000);
    const drainedMs = Date.now() - endedAt;
    const generations = [];
    for (let cursor: string | null = null; ;) {
      const page: Awaited<ReturnType<typeof ground.reelhaul.list>> = await ground.reelhaul.list({
        limit: 500,
        ...(cursor === null ? {} : { cursor }),
      });
      generations.push(...page.generations);
      cursor = page.cursor;
      if (cursor === null) break;
    }
    const extra = generations.reduce((sum, { attempts }) => sum + Math.max(0, attempts.submit - 1), 0);
    const minutes = outageMs / 60_000;
    const submits = last.submits - submitsBegun;
    const polls = last.calls - begun.calls - submits;
    return [
      ['away for', `${(outageMs / 1000).toFixed(0)} s (503 to everything), 400 generations, 4 workers`],
      ['submits while away', `${submits}, ${(submits / minutes).toFixed(1)} a minute`],
      ['polls while away, with the free probes', `${polls}, ${(polls / minutes).toFixed(1)} a minute`],
      ['further submit attempts of all generations together', extra],
      ['first task after it was back', `${(resumedMs / 1000).toFixed(1)} s`],
      ['all over', `${(drainedMs / 1000).toFixed(1)} s after it was back: ${sayStates(counts)}`],
    ];
  } finally {
    await ground.close();
  }
}
