/** The figures as tables for people and as JSON for programs. */
import { shownSpread, spreadOf, type Spread } from './figures.js';
import type { Figures } from './scenario.js';

/** All rounds of one subject. */
export interface Series {
  readonly name: string;
  readonly rounds: readonly Figures[];
}

export interface Result {
  readonly scenario: string;
  readonly about: string;
  readonly series: readonly Series[];
}

/** What a column is called at full length, with its unit. */
const COLUMNS: Readonly<Record<string, string>> = {
  rate: 'generations/s',
  cpu: 'CPU-s per 1,000',
  'cpu worker': 'of it worker',
  'cpu producer': 'producer',
  'cpu store': 'Redis or PostgreSQL',
  'cpu simulator': 'simulator (not counted)',
  commands: 'Redis commands',
  bytes: 'bytes to and from Redis',
  polls: 'polls',
  'memory in flight': 'Redis bytes in flight',
  'memory finished': 'Redis bytes finished',
  rss: 'worker RSS, MB',
  'delay p50': 'delay p50, s',
  'delay p95': 'p95, s',
  'delay p99': 'p99, s',
};

export function spreadsOf({ rounds }: Series): Record<string, Spread> {
  const names = [...new Set(rounds.flatMap((figures) => Object.keys(figures)))];
  return Object.fromEntries(
    names.map((name) => [name, spreadOf(rounds.flatMap((figures) => figures[name] ?? []))]),
  );
}

/** One line per figure, one column per subject: medians, and the range of the rounds. */
export function tableOf({ scenario, about, series }: Result): string {
  const spreads = series.map(spreadsOf);
  const names = [...new Set(spreads.flatMap((all) => Object.keys(all)))];
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const base = spreads.find((_, i) => series[i]?.name === 'plain BullMQ')?.['cpu']?.median;
  return [
    `### ${scenario}`,
    '',
    about,
    '',
    row(['', ...series.map(({ name }) => name)]),
    row(['---', ...series.map(() => '---')]),
    ...names.map((name) =>
      row([
        COLUMNS[name] ?? name,
        ...spreads.map((all) => (all[name] === undefined ? '–' : shownSpread(all[name]))),
      ]),
    ),
    ...(base === undefined
      ? []
      : [
          row([
            '**CPU, × plain BullMQ**',
            ...spreads.map((all) => `**${((all['cpu']?.median ?? NaN) / base).toFixed(2)}**`),
          ]),
        ]),
    '',
  ].join('\n');
}
