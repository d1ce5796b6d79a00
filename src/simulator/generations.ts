/**
 * What the simulator remembers of each generation between its submits: which step comes next, and which random faults
 * it drew.
 *
 * The random choice depends on the prompt, not on the generation id: ids are new in every run, prompts are not. Equal
 * prompts are numbered in the order in which they first arrive, and only among them does the order matter.
 */
import { drawFaults, type DrawnFaults, type Rates } from './faults.js';
import { generationIdIn } from './ledger.js';

export interface Generation {
  readonly key: string;
  readonly generationId: string | null;
  /** The prompt and its number among equal ones: what the random choice depends on. */
  readonly name: string;
  readonly drawn: DrawnFaults;
  /** Submits that came to a step of the script. */
  submits: number;
  tasks: number;
}

export interface Generations {
  of(prompt: string, callbackUrl: string, rates: Rates): Generation;
  clear(): void;
}

export function createGenerations(seed: number): Generations {
  const known = new Map<string, Generation>();
  const samePrompt = new Map<string, number>();
  return {
    of(prompt, callbackUrl, rates) {
      const generationId = generationIdIn(callbackUrl);
      const key = generationId ?? prompt;
      const before = known.get(key);
      if (before) return before;
      const count = (samePrompt.get(prompt) ?? 0) + 1;
      samePrompt.set(prompt, count);
      const name = `${prompt}#${count}`;
      const drawn = drawFaults(rates, seed, name);
      const generation: Generation = { key, generationId, name, drawn, submits: 0, tasks: 0 };
      known.set(key, generation);
      return generation;
    },
    clear() {
      known.clear();
      samePrompt.clear();
    },
  };
}
