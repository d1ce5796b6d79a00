/**
 * A chain of clips whose workers are killed again and again: each link is paid for once, and starts from the stored last
 * frame of the one before. `CHAIN_KILLS=200` kills more often than the suite has time for.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { POSTER_PNG } from '../../src/simulator/fixtures.js';
import { startApi } from '../support/api.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const KILLS = Number(process.env['CHAIN_KILLS'] ?? 4);
const LINKS = 5;
const LIMIT_MS = 180_000 + KILLS * 20_000;

const LINK = (i: number) => ({
  idempotencyKey: `link-${i}`,
  request: {
    prompt: `link ${i}`,
    image:
      i === 0
        ? `data:image/png;base64,${POSTER_PNG.toString('base64')}`
        : { generationKey: `link-${i - 1}`, asset: 'lastFrame' as const },
  },
});

/** What an operator does who can look into the books of the provider: a submit that never arrived is sent again. */
async function settleUnconfirmed(bed: Testbed): Promise<void> {
  const { generations } = await bed.reelhaul.list({ state: 'unconfirmed' });
  for (const { id } of generations) {
    const arrived = bed.simulator.ledger().submits.some(({ generationId }) => generationId === id);
    if (!arrived) await bed.reelhaul.decide(id, { resubmit: true }).catch(() => {});
  }
}

/** Workers that are killed at any moment of their lives, until the chain is over. Returns how many. */
async function runAndKill(bed: Testbed, most: number, isOver: () => Promise<boolean>): Promise<number> {
  let kills = 0;
  while (kills < most && !(await isOver())) {
    const worker = bed.spawnWorker({ LOG_LEVEL: 'info' });
    await until(
      () => worker.output().includes('worker started') || worker.child.exitCode !== null,
      async () => `a worker to start: ${worker.output()}`,
    );
    await pause(Math.random() * 1000);
    worker.child.kill('SIGKILL');
    await worker.exited;
    kills += 1;
    await settleUnconfirmed(bed);
  }
  return kills;
}

test(
  `a chain of ${LINKS} under ${KILLS} kills of its worker`,
  async () => {
    const port = await freePort();
    const bed = await createTestbed({
      simulator: { taskDurationMs: 200 },
      environment: {
        PUBLIC_URL: `http://127.0.0.1:${port}`,
        CALLBACK_SECRET: 'a secret for the tests',
        JOB_LOCK_MS: '1000',
      },
    });
    const api = await startApi(bed, { PORT: String(port) });
    try {
      let kills = 0;
      const chains: string[][] = [];
      // A chain that is over before its kills are spent is followed by another one.
      do {
        const made = await bed.reelhaul.enqueueMany(
          Array.from({ length: LINKS }, (_, i) => LINK(i)).map((item) => ({
            ...item,
            tenant: `t${chains.length}`,
          })),
        );
        const ids = made.map((result) => (result.ok ? result.generation.id : String(result.error)));
        chains.push(ids);
        const isOver = async () => (await bed.reelhaul.get(ids.at(-1)!)).state === 'succeeded';
        kills += await runAndKill(bed, KILLS - kills, isOver);
      } while (kills < KILLS);
      await bed.work();
      for (const id of chains.flat())
        await until(
          async () => {
            await settleUnconfirmed(bed);
            return (await bed.reelhaul.get(id)).state === 'succeeded';
          },
          async () => `${id} to succeed; it is ${JSON.stringify(await bed.reelhaul.get(id))}`,
          LIMIT_MS,
        );

      const { submits, tasks, totals } = bed.simulator.ledger();
      for (const ids of chains)
        for (const [i, id] of ids.entries()) {
          expect(tasks.filter(({ generationId }) => generationId === id)).toHaveLength(1);
          const [{ inputs }] = submits.filter((submit) => submit.generationId === id) as [
            (typeof submits)[number],
          ];
          const frame = i === 0 ? null : (await bed.reelhaul.get(ids[i - 1]!)).assets!.lastFrame!;
          const bytes = frame === null ? POSTER_PNG : await readFile(join(bed.archive, frame.key));
          expect(inputs.map(({ sha256 }) => sha256)).toEqual([
            createHash('sha256').update(bytes).digest('hex'),
          ]);
        }
      expect(totals).toMatchObject({ maxTasksPerGeneration: 1, tasksCreated: chains.length * LINKS });
    } finally {
      await api.close();
      await bed.close();
    }
  },
  LIMIT_MS,
);
