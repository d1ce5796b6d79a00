/** The figures as a small picture: polls per task, as a share of those of the fixed schedule. */
export interface Bar {
  readonly label: string;
  readonly colour: string;
  readonly percent: number;
}

export interface Group {
  readonly name: string;
  readonly bars: readonly Bar[];
}

const LEFT = 90;
const WIDTH = 420;
const BAR = 9;
const GAP = 12;
const TOP = 44;

const text = (x: number, y: number, words: string, more = '') =>
  `<text x="${x}" y="${y}" font-size="11" ${more}>${words}</text>`;

/** An SVG without anything foreign in it; readable on light and dark pages. */
export function drawBars(groups: readonly Group[]): string {
  const parts: string[] = [];
  let y = TOP;
  for (const { name, bars } of groups) {
    parts.push(text(LEFT - 8, y + (bars.length * BAR) / 2 + 4, name, 'text-anchor="end"'));
    for (const { percent, colour } of bars) {
      const width = ((Math.min(percent, 100) / 100) * WIDTH).toFixed(1);
      parts.push(`<rect x="${LEFT}" y="${y}" width="${width}" height="${BAR - 1}" fill="${colour}"/>`);
      const label = `${percent.toFixed(0)} %`;
      parts.push(text(LEFT + Number(width) + 4, y + BAR - 1, label, 'style="font-size:9px"'));
      y += BAR;
    }
    y += GAP;
  }
  const half = LEFT + WIDTH / 2;
  parts.push(
    `<line x1="${half}" x2="${half}" y1="${TOP - 6}" y2="${y - GAP + 4}" stroke="#888" stroke-dasharray="4 3"/>`,
    text(LEFT, 14, 'Polls per task, as a share of one poll every 6 s ± 1.5 s (100 %)'),
  );
  let x = LEFT;
  for (const { label, colour } of groups[0]?.bars ?? []) {
    parts.push(`<rect x="${x}" y="22" width="9" height="9" fill="${colour}"/>`, text(x + 13, 30, label));
    x += 28 + label.length * 6;
  }
  const height = y;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 ${height}" width="640" height="${height}" role="img"`,
    ' font-family="sans-serif" fill="#777"><title>Polls per task by distribution and schedule</title>',
    ...parts,
    '</svg>\n',
  ].join('\n');
}
