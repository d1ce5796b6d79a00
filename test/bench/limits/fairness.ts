/** Twenty tenants of very unequal backlog, and a newcomer behind ten thousand. */
import { image, openGround, type Row } from './ground.js';

const TENANTS = 20;
const tenantIn = (prompt: string | null) => /^of (\S+)/.exec(prompt ?? '')?.[1] ?? '';

/** (Σx)² / (n Σx²): 1 when all have the same, 1/n when one has everything (Jain, Chiu, Hawe 1984). */
export function jainIndex(shares: readonly number[]): number {
  const sum = shares.reduce((a, b) => a + b, 0);
  return sum ** 2 / (shares.length * shares.reduce((a, b) => a + b * b, 0));
}

const backlogOf = (tenant: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({ request: { prompt: `of ${tenant} ${i}`, image }, tenant }));

export async function runFairness(): Promise<Row[]> {
  const ground = await openGround({ taskDurationMs: 300 }, { MAX_IN_FLIGHT: '20' });
  try {
    // From 40 to about 2,500 waiting.
    const sizes = Array.from({ length: TENANTS }, (_, i) => Math.round(40 * 1.243 ** i));
    for (const [i, size] of sizes.entries()) await ground.enqueue(backlogOf(`tenant-${i}`, size));
    ground.employ(4);
    const wanted = sizes[0]! * TENANTS;
    await ground.simulator.waitUntil(({ totals }) => totals.submits >= wanted, 300_000);
    const served = ground.simulator.ledger().submits.slice(0, wanted);
    const left = new Map(sizes.map((size, i) => [`tenant-${i}`, size]));
    const shares = new Map([...left.keys()].map((tenant) => [tenant, 0]));
    let counted = 0;
    // As long as every tenant still has somebody waiting.
    for (const { prompt } of served) {
      const tenant = tenantIn(prompt);
      left.set(tenant, left.get(tenant)! - 1);
      shares.set(tenant, shares.get(tenant)! + 1);
      counted += 1;
      if (left.get(tenant) === 0) break;
    }
    const values = [...shares.values()];
    return [
      ['backlogs', `${TENANTS} tenants, ${sizes[0]} to ${sizes.at(-1)} waiting`],
      ['submits while all had work', counted],
      ['per tenant', `${Math.min(...values)} to ${Math.max(...values)}`],
      ["Jain's index", jainIndex(values).toFixed(4)],
    ];
  } finally {
    await ground.close();
  }
}

export async function runNewcomer(): Promise<Row[]> {
  const ground = await openGround({ taskDurationMs: 300 }, { MAX_IN_FLIGHT: '20' });
  try {
    const big = await ground.enqueue(backlogOf('big', 10_000));
    ground.employ(2);
    const arrived: number[] = [];
    const begun: number[] = [];
    for (let i = 0; i < 10; i++) {
      await ground.simulator.waitUntil(({ totals }) => totals.submits >= 50 * (i + 1), 120_000);
      const [newcomer] = await ground.enqueue([
        { request: { prompt: `of small-${i} 0`, image }, tenant: `small-${i}` },
      ]);
      const { id, createdAt } = newcomer!;
      const { seq } = await ground.simulator.waitForSubmit(
        ({ prompt }) => tenantIn(prompt) === `small-${i}`,
        60_000,
      );
      const { submits } = ground.simulator.ledger();
      arrived.push(submits.slice(0, seq - 1).filter(({ at }) => at >= createdAt).length);
      // Those of one moment overtake each other on their way: what counts for fair order is when Redis let them go.
      const { submittedAt } = await ground.reelhaul.get(id);
      const near = submits.slice(Math.max(0, seq - 60)).filter(({ prompt }) => tenantIn(prompt) === 'big');
      const others = await Promise.all(
        near.map(({ prompt }) => ground.reelhaul.get(big[Number(prompt!.split(' ').at(-1))]!.id)),
      );
      begun.push(
        others.filter((other) => other.submittedAt! >= createdAt && other.submittedAt! < submittedAt!).length,
      );
    }
    const say = (counts: number[]) => {
      const sorted = counts.toSorted((a, b) => a - b);
      return `median ${sorted[5]}, most ${sorted.at(-1)}`;
    };
    return [
      ['backlog of the other tenant', '10,000'],
      ['submits begun before the newcomer (10 times)', say(begun)],
      ['submits at the provider before it', say(arrived)],
    ];
  } finally {
    await ground.close();
  }
}
