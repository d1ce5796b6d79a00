/** One big synthetic video, hauled and verified by a worker process: its memory must not follow the size. */
import { cpuSeconds, residentMegabytes } from '../processes.js';
import { readConfig } from '../../../src/config/config.js';
import { createReelhaul } from '../../../src/reelhaul.js';
import { IMAGE, createRig } from '../rig.js';
import type { Figures, Scenario } from '../scenario.js';

async function haul(size: string): Promise<Figures> {
  const rig = await createRig();
  const worker = rig.reelhaul(['worker'], { POLL_FIRST_DELAY_MS: '150' });
  const reelhaul = await createReelhaul({ config: readConfig(rig.environment) });
  try {
    const { id } = await reelhaul.enqueue({
      prompt: `big [sim: duration=100ms, size=${size}]`,
      image: IMAGE,
    });
    let beganAt = 0;
    const { state, failure, assets, finishedAt } = await reelhaul.waitFor(id, {
      onProgress: (generation) => {
        if (generation.state === 'archiving') beganAt = generation.updatedAt;
      },
    });
    if (state !== 'succeeded') throw new Error(`the generation ended ${state}: ${failure?.message}`);
    const { peak } = await residentMegabytes(worker.pid);
    const seconds = Math.max(0.001, (finishedAt! - beganAt) / 1000);
    return {
      seconds,
      'MB per s': assets!.video.sizeBytes / 1e6 / seconds,
      'cpu worker total': await cpuSeconds(worker.pid),
      rss: peak,
    };
  } finally {
    await reelhaul.close();
    await rig.close();
  }
}

export function bigAsset(scale: number): Scenario {
  const big = `${Math.max(1, Math.round(2048 * scale))}MB`;
  return {
    name: 'big-asset',
    about: `One video of ${big} (and a tiny one beside it), to the local disk.`,
    subjects: ['10KB', big].map((size) => ({ name: size, measure: () => haul(size) })),
  };
}
