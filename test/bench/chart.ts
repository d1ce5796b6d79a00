/** CPU per 1,000 generations as a small picture: one group per scenario, one bar per subject. */
import { shown } from './figures.js';
import { spreadsOf, type Result } from './report.js';

const LEFT = 130;
const WIDTH = 380;
const BAR = 15;
const GAP = 16;
const COLOURS: Readonly<Record<string, string>> = {
  worker: '#4477aa',
  producer: '#66ccee',
  store: '#ccbb44',
};

const text = (x: number, y: number, words: string, more = '') =>
  `<text x="${x}" y="${y}" font-size="11" ${more}>${words}</text>`;

/** An SVG without anything foreign in it; readable on light and dark pages. */
export function drawCpu(results: readonly Result[]): string {
  const parts: string[] = [text(LEFT, 14, 'CPU seconds per 1,000 generations')];
  for (const [i, [part, colour]] of Object.entries(COLOURS).entries()) {
    const x = LEFT + i * 90;
    parts.push(`<rect x="${x}" y="22" width="9" height="9" fill="${colour}"/>`, text(x + 13, 30, part));
  }
  let y = 52;
  for (const { scenario, series } of results) {
    const bars = series.map((one) => ({ name: one.name, spreads: spreadsOf(one) }));
    if (!bars.some(({ spreads }) => spreads['cpu'])) continue;
    const most = Math.max(...bars.map(({ spreads }) => spreads['cpu']?.median ?? 0));
    parts.push(text(4, y, scenario, 'font-weight="bold"'));
    y += 6;
    for (const { name, spreads } of bars) {
      parts.push(text(LEFT - 8, y + BAR - 4, name, 'text-anchor="end"'));
      let x = LEFT;
      for (const [part, colour] of Object.entries(COLOURS)) {
        const width = (WIDTH * (spreads[`cpu ${part}`]?.median ?? 0)) / most;
        parts.push(
          `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 3}" fill="${colour}"/>`,
        );
        x += width;
      }
      parts.push(text(x + 4, y + BAR - 4, shown(spreads['cpu']?.median ?? NaN)));
      y += BAR;
    }
    y += GAP;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 580 ${y}" width="580" height="${y}" role="img"`,
    ' font-family="sans-serif" fill="#777"><title>CPU seconds per 1,000 generations</title>',
    ...parts,
    '</svg>\n',
  ].join('\n');
}
