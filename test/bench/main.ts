/**
 * `npm run bench`: what reelhaul costs, beside what people would use instead, in one run on one machine: real Redis,
 * real worker processes, the simulator. Each round measures every subject once, so that they share the machine's moods.
 * pg-boss is left out unless `--contestants` names it, so that a run takes less than 15 minutes.
 * `--only stress,steady` chooses scenarios (`all` for all, the first three unless told), `--rounds 1 --scale 0.1` makes it
 * quick, `--write` puts the tables into docs/performance.md.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { shown } from './figures.js';
import { describeMachine } from './machine.js';
import { endOnSignals } from './processes.js';
import { reelhaul } from './reelhaul.js';
import { tableOf, type Result, type Series } from './report.js';
import { createRig } from './rig.js';
import { SETTINGS, type Figures, type Scenario } from './scenario.js';
import { backlog } from './scenarios/backlog.js';
import { bigAsset } from './scenarios/big-asset.js';
import { ceiling } from './scenarios/ceiling.js';
import { history } from './scenarios/history.js';
import { inFlight } from './scenarios/in-flight.js';
import { realDay } from './scenarios/real-day.js';
import { replicas } from './scenarios/replicas.js';
import { steady } from './scenarios/steady.js';
import { stress } from './scenarios/stress.js';
import { findPgBoss, floorUndici, plainBullmq } from './yardsticks/contestants.js';

const { values: flags } = parseArgs({
  options: {
    /** Scenarios, separated by commas. */
    only: { type: 'string', default: '' },
    /** Contestants whose name begins so, separated by commas; all but pg-boss unless told. */
    contestants: { type: 'string', default: '' },
    rounds: { type: 'string', default: '3' },
    /** Factor of all sizes. */
    scale: { type: 'string', default: '1' },
    /** File for the JSON. */
    json: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
endOnSignals();
const rounds = Number(flags.rounds);
const scale = Number(flags.scale);
if (!Number.isInteger(rounds) || rounds < 1 || !(scale > 0)) {
  process.stderr.write('expected --rounds to be a whole number from 1 on and --scale to be above 0\n');
  process.exit(2);
}

const pgBoss = await findPgBoss();
const wanted = flags.contestants.split(',');
const among = [reelhaul, plainBullmq, ...(pgBoss ? [pgBoss] : []), floorUndici].filter(({ name }) =>
  wanted.some((begin) => name.startsWith(begin)),
);
const onRedis = among.filter((one) => one !== floorUndici && one !== pgBoss);
/** The first three are run unless told: they say what most want to know. */
const usual: readonly Scenario[] = [
  stress(wanted.includes('') ? among.filter((one) => one !== pgBoss) : among, scale),
  inFlight(onRedis, scale),
  realDay([...onRedis, floorUndici], scale),
];
const all: readonly Scenario[] = [
  ...usual,
  bigAsset(scale),
  history(scale),
  ceiling(scale),
  replicas(scale),
  backlog(onRedis, scale),
  steady(scale),
];
const names = all.map(({ name }) => name);
const chosen =
  flags.only === '' ? usual.map(({ name }) => name) : flags.only === 'all' ? names : flags.only.split(',');
const unknown = chosen.filter((name) => !names.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`expected --only to name some of ${names.join(', ')}, got ${unknown.join(', ')}\n`);
  process.exit(2);
}
const scenarios = all.filter(({ name }) => chosen.includes(name));

const measured = new Map<string, Figures[]>();
for (let round = 1; round <= rounds; round++) {
  for (const scenario of scenarios) {
    for (const subject of scenario.subjects) {
      process.stderr.write(`round ${round} of ${rounds}: ${scenario.name}, ${subject.name}\n`);
      const key = `${scenario.name}/${subject.name}`;
      const figures = await subject.measure();
      const told = Object.entries(figures).map(([name, value]) => `${name} ${shown(value)}`);
      process.stderr.write(`  ${told.join(' · ')}\n`);
      measured.set(key, [...(measured.get(key) ?? []), figures]);
    }
  }
}

const results: Result[] = scenarios.map(({ name, about, subjects }) => ({
  scenario: name,
  about,
  series: subjects.map((subject): Series => ({
    name: subject.name,
    rounds: measured.get(`${name}/${subject.name}`) ?? [],
  })),
}));

const rig = await createRig();
const machine = await describeMachine(rig.client);
await rig.close();
const { submitsAtOnce, pollsAtOnce, downloadsAtOnce, pollEveryMs } = SETTINGS;
const report = [
  `${machine}. ${rounds} round${rounds > 1 ? 's' : ''}: medians, and in parentheses from where to where they went.`,
  `Per worker process ${submitsAtOnce} submits, ${pollsAtOnce} polls and ${downloadsAtOnce} downloads at once; the yardsticks poll every ${pollEveryMs / 1000} s.`,
  'CPU, commands, bytes and polls are per generation or per 1,000 of them.',
  '',
  ...results.map(tableOf),
].join('\n');
process.stdout.write(`${report}\n`);

const json = `${JSON.stringify({ machine, rounds, scale, settings: SETTINGS, results }, null, 2)}\n`;
if (flags.json !== undefined) await writeFile(flags.json, json);
if (flags.write) {
  const docs = (name: string) => fileURLToPath(new URL(`../../../docs/${name}`, import.meta.url));
  const before = await readFile(docs('performance.md'), 'utf8');
  const place = /(<!-- figures of npm run bench -->\n)[\s\S]*?(<!-- end of figures -->)/;
  if (!place.test(before)) throw new Error('docs/performance.md has no place for the figures');
  const after = before.replace(place, (_, begin: string, end: string) => `${begin}\n${report}\n${end}`);
  await writeFile(docs('performance.md'), after);
}
