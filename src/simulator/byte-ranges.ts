/** The `Range` header of a download. */

/** Bytes from `start` up to, not including, `end`. */
export interface Part {
  readonly start: number;
  readonly end: number;
}

/** The part that a `Range` header asks for: null for the whole file. One range only, as CDNs mostly serve. */
export function partOf(header: string | undefined, sizeBytes: number): Part | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return null;
  if (match[1] === '') {
    const lastBytes = Number(match[2]);
    return lastBytes === 0 ? 'unsatisfiable' : { start: Math.max(0, sizeBytes - lastBytes), end: sizeBytes };
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? sizeBytes : Math.min(sizeBytes, Number(match[2]) + 1);
  if (start >= sizeBytes || end <= start) return 'unsatisfiable';
  return { start, end };
}
