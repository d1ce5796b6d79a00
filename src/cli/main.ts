#!/usr/bin/env node
/** The program `reelhaul`. Exit codes: 0 done, 1 not done (the message says why), 2 the command line was wrong. */
import { run } from './run.js';

// The reader of a pipe has gone (`| head`): nothing more can be said.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const args = process.argv.slice(2);
await run(args);
// The doctor has said what hangs; that does not hold up its end as well.
if (args[0] === 'doctor') process.stdout.write('', () => process.exit());
