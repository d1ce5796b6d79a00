import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { ELSEWHERE, renderLibrary } from './library-page.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(`${root}/${path}`, 'utf8');

test('docs/library.md is what the docstrings say now (npm run docs:library)', () => {
  expect(read('docs/library.md')).toBe(renderLibrary(root));
});

test('it tells of everything that the package exports', () => {
  const exported = [...read('src/index.ts').matchAll(/(\w+)(?=,\n| \}|,? from)/g)].map(([, name]) => name!);
  const told = new Set(
    [...read('docs/library.md').matchAll(/^### (\w+)$|^\| `(\w+)` \|/gm)].map(([, a, b]) => a ?? b),
  );
  const missing = exported.filter(
    (name) => /^[A-Z]/.test(name) && !told.has(name) && !ELSEWHERE.includes(name),
  );
  expect(missing).toEqual([]);
});
