/** Many submits with workers killed all the time: cap and budget against the provider's books. */
import { setTimeout as wait } from 'node:timers/promises';
import { billsPerGeneration } from '../../../src/simulator/simulator.js';
import { image, openGround, sayStates, type Row } from './ground.js';

const CAP = 60;
const PRICE = 0.5;

export async function runCaps(generations: number, kills: number): Promise<Row[]> {
  // Room for all but a hundredth.
  const budget = Math.floor(generations * 0.99) * PRICE;
  const ground = await openGround(
    { taskDurationMs: 400 },
    {
      MAX_IN_FLIGHT: String(CAP),
      PRICES: JSON.stringify({ '*': PRICE }),
      BUDGET_PER_DAY: String(budget),
      OVER_BUDGET: 'fail',
      // An unconfirmed submit holds its slot for so long.
      GENERATION_DEADLINE_MS: '15000',
    },
  );
  try {
    const points = ['before-send', 'sent', 'answered', 'saved', 'handed-over'];
    let calm = false;
    const fleet = ground.employ(4, {
      points,
      probability: (0.5 * kills) / generations,
      onKill: (count) => {
        if (count >= kills) {
          calm = true;
          fleet.calmDown();
        }
      },
    });
    const beganAt = Date.now();
    for (let i = 0; i < generations; i += 1000)
      await ground.enqueue(
        Array.from({ length: Math.min(1000, generations - i) }, (_, n) => ({
          request: { prompt: `cap ${i + n}`, image },
        })),
      );
    let mostCounted = 0;
    let over = false;
    const watch = (async () => {
      while (!over) {
        mostCounted = Math.max(mostCounted, (await ground.reelhaul.limits()).inFlight);
        await wait(50);
      }
    })();
    const strike = (async () => {
      for (let dice = 0.37; !over; dice = (dice * 7.31) % 1) {
        await wait(1000);
        if (!calm && !over) fleet.killOne(dice);
      }
    })();
    const counts = await ground.until(
      (states) =>
        ['queued', 'submitting', 'generating', 'archiving'].every((state) => (states[state] ?? 0) === 0),
      480_000,
    );
    const tookMs = Date.now() - beganAt;
    over = true;
    await Promise.all([watch, strike]);
    const spend = await ground.reelhaul.spend();
    const ledger = ground.simulator.ledger();
    const { totals } = ledger;
    const bills = totals.bills * PRICE;
    const most = Math.max(...[...billsPerGeneration(ledger).values()].map(({ tasks }) => tasks));
    const known = spend.charged <= bills + 1e-6 && bills <= spend.charged + spend.possible + 1e-6;
    return [
      ['generations', generations],
      [
        'kills of workers',
        `${fleet.kills.outside} from outside, ${fleet.kills.atPoints} at ${points.join(', ')}`,
      ],
      ['ended as', `${sayStates(counts)}, in ${(tookMs / 1000).toFixed(0)} s`],
      ['cap', CAP],
      ['most tasks at the provider at once', totals.maxTasksInFlight],
      ['most that reelhaul counted', mostCounted],
      ['counted at the end', (await ground.reelhaul.limits()).inFlight],
      ['budget', budget.toFixed(2)],
      ["the provider's bills", bills.toFixed(2)],
      [
        'spend: charged, possible',
        `${spend.charged.toFixed(2)}, ${spend.possible.toFixed(2)}${known ? '' : ': THE BILLS ARE NOT BETWEEN THEM'}`,
      ],
      ['tasks per generation (max)', most],
    ];
  } finally {
    await ground.close();
  }
}
