/** Tasks that are done at the first poll: what a generation costs at the least. Beside all yardsticks. */
import type { Contestant } from '../contestant.js';
import { drain, onRig, prompts, SETTINGS, SMALL_VIDEO, warmUp, type Scenario } from '../scenario.js';

const settings = { ...SETTINGS, firstPollMs: 1000 };
const DONE_SOON = () => `duration=500ms, ${SMALL_VIDEO}`;

export function stress(contestants: readonly Contestant[], scale: number): Scenario {
  const count = Math.round(1500 * scale);
  return {
    name: 'stress',
    about: `${count.toLocaleString('en')} generations, done at the first poll, one video of 64 KB each.`,
    subjects: contestants.map((contestant) => ({
      name: contestant.name,
      measure: () =>
        onRig(contestant, settings, async (rig, contest) => {
          await warmUp(contest, 500, DONE_SOON);
          return drain(rig, contest, prompts('fast', count, DONE_SOON));
        }),
    })),
  };
}
