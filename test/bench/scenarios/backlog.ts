/** A long line that was there before the first worker. */
import type { Contestant } from '../contestant.js';
import { startMeter } from '../meter.js';
import { perGeneration, onRig, prompts, SETTINGS, until, type Scenario } from '../scenario.js';

const DONE_SOON = () => 'duration=500ms';

export function backlog(contestants: readonly Contestant[], scale: number): Scenario {
  const count = Math.round(10_000 * scale);
  return {
    name: 'backlog',
    about: `${count.toLocaleString('en')} enqueued while no worker runs, then drained by one.`,
    subjects: contestants.map((contestant) => ({
      name: contestant.name,
      measure: () =>
        onRig(contestant, { ...SETTINGS, firstPollMs: 1000, workers: 0 }, async (rig, contest) => {
          const enqueueing = await startMeter(rig, contest);
          await contest.enqueue(prompts('patient', count, DONE_SOON));
          const enqueued = await enqueueing();
          contest.work(1);
          const draining = await startMeter(rig, contest);
          await until('the end', async () => (await contest.over()) >= count);
          const drained = await draining();
          return {
            'enqueued per s': count / enqueued.seconds,
            rate: count / drained.seconds,
            ...perGeneration({ ...drained, producer: enqueued.producer }, count),
          };
        }),
    })),
  };
}
