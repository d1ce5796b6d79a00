/** How soon a slot that became free is used again: from the end of a task, as reelhaul saw it, to the next POST. */
import { image, isOver, openGround, sayStates, type Row } from './ground.js';

const CAP = 8;
/** Through workers that have only just started, on cores that they start on: not counted. */
const WARM_UP = 100;
const COUNTED = 400;
const GENERATIONS = WARM_UP + COUNTED;

const at = (sorted: readonly number[], share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;

/**
 * Tasks end one by one, and as many wait as can be: every slot that becomes free is wanted. The n-th slot that is freed is
 * that of the n-th POST beyond the cap, since never more than the cap live at the provider.
 */
export async function runResume(): Promise<Row[]> {
  const ground = await openGround({ taskDurationMs: 400 }, { MAX_IN_FLIGHT: String(CAP) });
  try {
    const freedAt: number[] = [];
    const watching = (async () => {
      for await (const event of ground.reelhaul.events()) {
        if (event.type !== 'state') continue;
        // By the clock of Redis, when the transition was written: the cursor begins with it.
        if (event.from === 'generating' && event.to === 'archiving')
          freedAt.push(Number(event.cursor.split('-')[0]));
        if (freedAt.length === GENERATIONS) return;
      }
    })();
    ground.employ(4);
    await ground.enqueue(
      Array.from({ length: GENERATIONS }, (_, i) => ({ request: { prompt: `slot ${i}`, image } })),
    );
    const counts = await ground.until(isOver, 300_000);
    await watching;
    freedAt.sort((a, b) => a - b);
    const submits = ground.simulator.ledger().submits;
    const waits = submits
      .slice(CAP + WARM_UP)
      .map(({ at: postedAt }, i) => postedAt - freedAt[i + WARM_UP]!)
      .sort((a, b) => a - b);
    return [
      ['cap', `${CAP} at the provider, ${COUNTED} generations after ${WARM_UP}, 4 workers`],
      ['ended as', sayStates(counts)],
      ['most tasks at the provider at once', ground.simulator.ledger().totals.maxTasksInFlight],
      [
        'from a free slot to the next POST (ms)',
        `p50 ${at(waits, 0.5)}, p95 ${at(waits, 0.95)}, p99 ${at(waits, 0.99)}, most ${waits.at(-1)}, of ${waits.length}`,
      ],
      ['within 100 ms', `${waits.filter((ms) => ms <= 100).length} of ${waits.length}`],
    ];
  } finally {
    await ground.close();
  }
}
