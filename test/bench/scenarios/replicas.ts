/** The same work with one, two and four worker processes. */
import { reelhaul } from '../reelhaul.js';
import { drain, onRig, prompts, SETTINGS, warmUp, type Scenario } from '../scenario.js';

const DONE_SOON = () => 'duration=500ms';

export function replicas(scale: number): Scenario {
  const count = Math.round(3000 * scale);
  return {
    name: 'replicas',
    about: `${count.toLocaleString('en')} generations done at the first poll, by 1, 2 and 4 worker processes.`,
    subjects: [1, 2, 4].map((workers) => ({
      name: `${workers} worker${workers > 1 ? 's' : ''}`,
      measure: () =>
        onRig(reelhaul, { ...SETTINGS, firstPollMs: 1000, workers }, async (rig, contest) => {
          await warmUp(contest, 200 * workers, DONE_SOON);
          return drain(rig, contest, prompts('shared', count, DONE_SOON));
        }),
    })),
  };
}
