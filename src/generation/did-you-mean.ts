/** Finds the name that a misspelt one probably stands for. */

/** Spelling without what people vary: case, underscores, dashes. */
const plain = (name: string) => name.toLowerCase().replaceAll(/[_-]/g, '');

/** Edits (insert, delete, replace, swap of neighbours) from one text to the other. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const replaced = (last[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      const edits = Math.min((last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, replaced);
      const isSwap =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(isSwap ? Math.min(edits, (beforeLast[column - 2] ?? 0) + 1) : edits);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}

/** The one of `names` that is meant; null when none is near enough. At most a quarter of the letters may differ. */
export function didYouMean(name: string, names: readonly string[]): string | null {
  const wanted = plain(name);
  const limit = Math.max(1, Math.floor(wanted.length / 4));
  let nearest: string | null = null;
  let nearestEdits = limit + 1;
  for (const candidate of names) {
    const other = plain(candidate);
    // At least as many edits as the lengths differ by.
    if (Math.abs(other.length - wanted.length) >= nearestEdits) continue;
    const edits = editDistance(wanted, other);
    if (edits < nearestEdits) [nearest, nearestEdits] = [candidate, edits];
  }
  return nearest;
}
