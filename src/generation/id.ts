/**
 * Ids of generations: UUIDv7, so that they sort by creation. Their time is Redis' time, and within a process they never
 * sort backwards while that time goes on, also within one millisecond.
 */
import { randomBytes } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';

/** The form of every id of ours. */
export const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A longer step back than this is that of a server, which new ids follow. */
const STEP_BACK_MS = 1000;

/** Hands out the ids of one process. */
export function createIds(now: () => number): () => string {
  let latest = -Infinity;
  let sequence = 0;
  return () => {
    const at = now();
    if (at > latest || latest - at >= STEP_BACK_MS) {
      latest = at;
      // The upper half is left to count into.
      sequence = randomBytes(4).readUInt32BE() >>> 1;
    } else sequence = (sequence + 1) | 0;
    return uuidv7({ msecs: latest, seq: sequence });
  };
}
