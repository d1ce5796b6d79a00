/**
 * The trail of a generation: each state it reached, and when. It is kept in the record, so that the history can be shown
 * long after the event stream has dropped it. Each step is a short word: the letter of the state and the milliseconds since
 * the generation was created. The length is bounded: the first steps of a very long history are dropped.
 */
import type { State } from './states.js';

const MAX_LENGTH = 600;

const LETTERS: Readonly<Record<State, string>> = {
  queued: 'q',
  submitting: 's',
  unconfirmed: 'u',
  generating: 'g',
  archiving: 'a',
  succeeded: 'd',
  failed: 'f',
  expired: 'x',
  canceled: 'c',
};
const STATE_OF = new Map(Object.entries(LETTERS).map(([state, letter]) => [letter, state as State]));

/** A generation came to this state; the first step, `queued` at its creation, is never written. */
export interface Step {
  readonly state: State;
  /** Epoch milliseconds. */
  readonly at: number;
}

/** The trail with one more step. */
export function withStep(trail: string, createdAt: number, { state, at }: Step): string {
  const longer = `${trail}${trail === '' ? '' : ' '}${LETTERS[state]}${Math.max(0, Math.round(at - createdAt))}`;
  return longer.length <= MAX_LENGTH
    ? longer
    : longer.slice(longer.indexOf(' ', longer.length - MAX_LENGTH) + 1);
}

/** The steps that are still known, oldest first. What is not a step is skipped. */
export function readTrail(trail: string, createdAt: number): Step[] {
  return trail.split(' ').flatMap((word): Step[] => {
    const state = STATE_OF.get(word.slice(0, 1));
    const afterMs = Number(word.slice(1));
    return state === undefined || !/^\d+$/.test(word.slice(1)) ? [] : [{ state, at: createdAt + afterMs }];
  });
}

/** When it came to where it is now: its last step, or its creation. */
export function since(trail: string, createdAt: number): number {
  return readTrail(trail, createdAt).at(-1)?.at ?? createdAt;
}
