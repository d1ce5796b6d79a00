/**
 * `npm run simulate:polling`: how many polls each schedule spends, and how late it notices the end, on durations of
 * several shapes. `--write` puts the table and the picture into docs/polling.md and docs/polling.svg.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createDice, DISTRIBUTIONS, type Distribution, type SimulatedTask } from './distributions.js';
import { bestAges, fewestPolls, stratumOf, type Stratum } from './optimum.js';
import { drawBars, type Group } from './plot.js';
import { atAges, backoff, fixed, learning, type Feed, type Policy } from './policies.js';
import { simulate, type RunningAt } from './simulation.js';

const { values: flags } = parseArgs({
  options: {
    tasks: { type: 'string', default: '4000' },
    seeds: { type: 'string', default: '3' },
    write: { type: 'boolean', default: false },
  },
});
const taskCount = Number(flags.tasks);
const seeds = Array.from({ length: Number(flags.seeds) }, (_, i) => i + 1);

const FEEDS: readonly (readonly [name: string, feed: Feed])[] = [
  ['learning; the feed says only "pending"', { times: false, progress: false }],
  ['learning; start and end times', { times: true, progress: false }],
  ['learning; progress', { times: false, progress: true }],
  ['learning; both', { times: true, progress: true }],
];

interface Row {
  readonly schedule: string;
  /** Over all seeds. */
  readonly pollsPerTask: number;
  /** Detection delays in seconds. */
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  /** How far the polls of one seed are from those of all, at most, as a share. */
  readonly spread: number;
}

function over(
  makeTasks: (seed: number) => readonly SimulatedTask[],
  schedule: string,
  create: (seed: number, runningAt: RunningAt) => Policy,
): Row {
  const runs = seeds.map((seed) => simulate(makeTasks(seed), (runningAt) => create(seed, runningAt)));
  const delays = runs.flatMap((run) => run.delays).sort((a, b) => a - b);
  const quantile = (q: number) => delays[Math.floor(q * delays.length)] ?? 0;
  const pollsPerTask = runs.reduce((sum, run) => sum + run.pollsPerTask, 0) / runs.length;
  const spread = Math.max(...runs.map((run) => Math.abs(run.pollsPerTask / pollsPerTask - 1)));
  return { schedule, pollsPerTask, p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), spread };
}

/** What whoever knows everything knows: a large sample of each stratum. */
function strataOf(distribution: Distribution): Stratum[] {
  const tasks = distribution.make(40_000, createDice(99));
  const strata = new Map<number, number[]>();
  for (const { stratum, sinceS, queuedS, runS } of tasks) {
    strata.set(stratum, [...(strata.get(stratum) ?? []), queuedS + runS - sinceS]);
  }
  return [...strata.entries()]
    .sort(([a], [b]) => a - b)
    .map(([, samples]) => stratumOf(samples, samples.length / tasks.length));
}

interface Result {
  readonly distribution: Distribution;
  readonly rows: readonly Row[];
  readonly bound: number;
}

function compare(distribution: Distribution): Result {
  const made = new Map<number, readonly SimulatedTask[]>();
  const tasks = (seed: number) => {
    const known = made.get(seed) ?? distribution.make(taskCount, createDice(seed));
    made.set(seed, known);
    return known;
  };
  const dice = (seed: number) => createDice(1000 + seed);
  const usual = over(tasks, 'fixed, 6 s ± 1.5 s', (seed) => fixed(dice(seed)));
  const doubling = over(tasks, 'exponential backoff, 5 s to 60 s', (seed) => backoff(dice(seed)));
  const learnt = FEEDS.map(([name, feed]) =>
    over(tasks, name, (seed, runningAt) => learning(feed, dice(seed), runningAt)),
  );
  const strata = strataOf(distribution);
  // Where the start of the work is what counts, the best schedule is told it, and compared with who sees it as well.
  const peer = learnt[tasks(1).some(({ sinceS }) => sinceS > 0) ? 1 : 0]!;
  const ages = bestAges(strata, peer.pollsPerTask);
  const best = over(tasks, 'knows the distribution, same polls as learning', () =>
    atAges(({ stratum, sinceS }) => (ages[stratum] ?? []).map((age) => age + sinceS)),
  );
  const bound = fewestPolls(strata, usual.p50, usual.p95);
  return { distribution, rows: [usual, doubling, ...learnt, best], bound };
}

const number = (value: number) => value.toFixed(value < 100 ? 1 : 0);

/** What the median of this many delays may be off by, by chance: two standard errors, in seconds. */
const CHANCE_S = 0.06;

/** At most half the polls, at no worse p50 and p95. */
function reached(row: Row, base: Row): boolean {
  return (
    row.pollsPerTask <= base.pollsPerTask / 2 &&
    row.p50 <= base.p50 + CHANCE_S &&
    row.p95 <= base.p95 + CHANCE_S
  );
}

function tableOf({ distribution, rows, bound }: Result): string {
  const base = rows[0]!;
  const lines = rows.map((row) => {
    const { schedule, pollsPerTask, p50, p95, p99, spread } = row;
    const cells = [
      schedule,
      `${number(pollsPerTask)} ± ${(100 * spread).toFixed(1)} %`,
      `${((100 * pollsPerTask) / base.pollsPerTask).toFixed(0)} %`,
      p50.toFixed(2),
      p95.toFixed(2),
      p99.toFixed(1),
      schedule.startsWith('learning') ? (reached(row, base) ? 'reached' : 'missed') : '',
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const fewest = ((100 * bound) / base.pollsPerTask).toFixed(0);
  return [
    `### ${distribution.name[0]!.toUpperCase()}${distribution.name.slice(1)}`,
    '',
    `${distribution.about[0]!.toUpperCase()}${distribution.about.slice(1)}.`,
    '',
    '| Schedule | Polls per task | of fixed | Delay p50, s | p95, s | p99, s | Target |',
    '|---|---|---|---|---|---|---|',
    ...lines,
    '',
    `Fewest polls with which any schedule that knows the distribution can have that p50 and p95: ${number(bound)} (${fewest} %).`,
    '',
  ].join('\n');
}

function groupOf({ distribution, rows, bound }: Result): Group {
  const base = rows[0]!.pollsPerTask;
  const share = (polls: number) => (100 * polls) / base;
  return {
    name: distribution.name,
    bars: [
      { label: 'learning, no hints', colour: '#4477aa', percent: share(rows[2]!.pollsPerTask) },
      { label: 'times', colour: '#66ccee', percent: share(rows[3]!.pollsPerTask) },
      { label: 'times and progress', colour: '#228833', percent: share(rows[5]!.pollsPerTask) },
      { label: 'bound without hints', colour: '#bbbbbb', percent: share(bound) },
    ],
  };
}

const MARKS = ['<!-- figures: npm run simulate:polling -- --write -->', '<!-- end of figures -->'] as const;

const results: Result[] = [];
const processor = cpus()[0]?.model ?? 'unknown processor';
const settings = `${taskCount} tasks, one every 4 s, seeds ${seeds.join(', ')}, cold start included; Node ${process.versions.node}, ${availableParallelism()} × ${processor}.`;
process.stdout.write(`${settings}\n\n`);
for (const distribution of DISTRIBUTIONS) {
  const result = compare(distribution);
  results.push(result);
  process.stdout.write(`${tableOf(result)}\n`);
}

if (flags.write) {
  const page = fileURLToPath(new URL('../../../../docs/polling.md', import.meta.url));
  const picture = fileURLToPath(new URL('../../../../docs/polling.svg', import.meta.url));
  const written = await readFile(page, 'utf8');
  const [before = '', rest = ''] = written.split(MARKS[0]);
  const after = rest.split(MARKS[1])[1] ?? '';
  const figures = `\n\n${settings}\n\n${results.map(tableOf).join('\n')}\n`;
  await writeFile(page, `${before}${MARKS[0]}${figures}${MARKS[1]}${after}`);
  await writeFile(picture, drawBars(results.map(groupOf)));
}
