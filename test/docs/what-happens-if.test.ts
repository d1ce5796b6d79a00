import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(`${root}/docs/what-happens-if.md`, 'utf8');
const questions = page.split(/^(?=\*\*… )/m).slice(1);

/** The titles of tests in a file, as they are written: of tests, of tests with a table, of groups. */
function titlesIn(path: string): Set<string> {
  const source = readFileSync(`${root}/${path}`, 'utf8');
  const calls = source.matchAll(
    /(?:\b(?:test|describe|onRealRedis)(?:\.\w+)?|\)|\])\s*\(\s*'((?:[^'\\]|\\.)*)'/g,
  );
  return new Set([...calls].map(([, title]) => title!.replaceAll("\\'", "'")));
}

test('at least 30 questions are answered', () => {
  expect(questions.length).toBeGreaterThanOrEqual(30);
});

describe.each(questions.map((text) => [/^\*\*(… .*?\?)\*\*/s.exec(text)![1]!.replaceAll('\n', ' '), text]))(
  '%s',
  (_, text) => {
    const shownBy = [...text.matchAll(/^- `([^`]+)`: “(.+)”$/gm)];

    test('is shown by tests that exist', () => {
      expect(shownBy.length).toBeGreaterThan(0);
      for (const [, path, title] of shownBy) {
        expect([path, existsSync(`${root}/${path}`)]).toEqual([path, true]);
        expect([path, title, titlesIn(path!).has(title!)]).toEqual([path, title, true]);
      }
    });
  },
);
