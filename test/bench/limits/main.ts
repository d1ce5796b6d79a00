/**
 * `npm run bench:limits`: the limits against the books of the simulator, with real worker processes. Each run prints a
 * table; `--only` picks some of them, `--generations` and `--outage-s` make them longer or shorter.
 */
import { parseArgs } from 'node:util';
import { runCaps } from './caps.js';
import { runFairness, runNewcomer } from './fairness.js';
import type { Row } from './ground.js';
import { runOutage } from './outage.js';
import { runRate } from './rate.js';
import { runResume } from './resume.js';

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', default: 'rate,rate-unknown,fairness,newcomer,resume,caps,outage' },
    generations: { type: 'string', default: '10000' },
    kills: { type: 'string', default: '60' },
    'outage-s': { type: 'string', default: '300' },
  },
});

const RUNS: Readonly<Record<string, () => Promise<Row[]>>> = {
  rate: () => runRate(500, true),
  'rate-unknown': () => runRate(500, false),
  fairness: runFairness,
  newcomer: runNewcomer,
  resume: runResume,
  caps: () => runCaps(Number(flags.generations), Number(flags.kills)),
  outage: () => runOutage(Number(flags['outage-s']) * 1000),
};

const chosen = flags.only.split(',');
const unknown = chosen.filter((name) => !Object.hasOwn(RUNS, name));
if (unknown.length > 0) {
  process.stderr.write(
    `expected --only with some of ${Object.keys(RUNS).join(', ')}, got ${unknown.join(', ')}\n`,
  );
  process.exit(2);
}
for (const name of chosen) {
  const rows = await RUNS[name]!();
  const width = Math.max(...rows.map(([label]) => label.length));
  process.stdout.write(
    `## ${name}\n${rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`).join('\n')}\n\n`,
  );
}
