// Preloaded into a process (node --import): its clock is off by as many milliseconds as the file SHIFT_FILE says, now.
import { readFileSync } from 'node:fs';

const real = Date.now;
const LOOK_EVERY_MS = 20;
let shiftMs = 0;
let lookedAt = -Infinity;
Date.now = () => {
  if (performance.now() - lookedAt > LOOK_EVERY_MS) {
    lookedAt = performance.now();
    shiftMs = Number(readFileSync(process.env.SHIFT_FILE, 'utf8'));
  }
  return real() + shiftMs;
};
