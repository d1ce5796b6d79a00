/** What the demo shows: a live line per generation, and the table at the end. */
import { join } from 'node:path';
import { styleText } from 'node:util';
import type { Generation } from '../../generation/record.js';
import type { State } from '../../generation/states.js';

const WAY: readonly State[] = ['queued', 'submitting', 'generating', 'archiving', 'succeeded'];

export interface ProgressLines {
  /** Redraws the lines on a terminal; elsewhere prints a line whenever a state changed. */
  show(generations: readonly Generation[]): void;
}

export function createProgressLines(write: (text: string) => void, isTerminal: boolean): ProgressLines {
  let drawn = 0;
  const lastStates = new Map<string, State>();
  return {
    show(generations) {
      if (isTerminal) {
        const up = drawn > 0 ? `\u001b[${drawn}A` : '';
        write(up + generations.map((generation) => `\u001b[2K${progressLine(generation)}\n`).join(''));
        drawn = generations.length;
        return;
      }
      for (const generation of generations) {
        if (lastStates.get(generation.id) === generation.state) continue;
        lastStates.set(generation.id, generation.state);
        write(`${progressLine(generation)}\n`);
      }
    },
  };
}

function progressLine({ id, state, progress, attempts, request }: Generation): string {
  const reached = WAY.indexOf(state);
  const dots = WAY.map((_, i) =>
    i < reached || state === 'succeeded' ? '●' : i === reached ? '◐' : '○',
  ).join('─');
  const percent = state === 'generating' && progress !== null ? ` ${progress} %` : '';
  const title = request.prompt.replace(/\s*\[sim:.*?\]/, '').slice(0, 44);
  const word = `${state}${percent}`.padEnd(18);
  const colored =
    state === 'succeeded' ? styleText('green', word) : reached < 0 ? styleText('red', word) : word;
  return `${id.slice(-8)}  ${dots}  ${colored} ${String(attempts.poll).padStart(2)} polls  ${title}`;
}

/** A plain table: id, state, polls, seconds, size, sha256, file. */
export function summaryTable(generations: readonly Generation[], archive: string): string {
  const head = ['id', 'state', 'polls', 'seconds', 'size', 'sha256', 'file'];
  const rows = generations.map(({ id, state, attempts, createdAt, finishedAt, assets, failure }) => [
    id,
    state,
    String(attempts.poll),
    finishedAt === null ? '-' : ((finishedAt - createdAt) / 1000).toFixed(1),
    assets ? `${assets.video.sizeBytes} B` : '-',
    assets ? assets.video.sha256.slice(0, 16) : '-',
    assets ? join(archive, assets.video.key) : (failure?.message ?? '-'),
  ]);
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]!.length)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd();
  return [line(head), line(widths.map((width) => '─'.repeat(width))), ...rows.map(line)].join('\n');
}
