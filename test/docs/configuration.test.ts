import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { expectationOf, VARIABLES } from '../../src/config/config.js';
import { renderConfiguration } from './configuration-page.js';

const read = (path: string) => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');

test('docs/configuration.md is what the schema and .env.example say now (npm run docs:configuration)', () => {
  expect(read('docs/configuration.md')).toBe(renderConfiguration(read('.env.example')));
});

test('what a variable may be is said in the words of its error message', () => {
  expect(expectationOf('SUBMIT_TIMEOUT_MS')).toBe('a whole number of milliseconds from 100 to 31536000000');
  expect(expectationOf('PUBLIC_URL')).toBe('a URL that starts with https:// or http://');
  expect(expectationOf('MAX_IN_FLIGHT')).toMatch(/^a whole number of generations at once/);
  const anyText = VARIABLES.filter((name) => expectationOf(name) === null);
  expect(anyText.filter((name) => !/URL$|SECRET$|PASSWORD$|USER$|_FILE$/.test(name))).toEqual([]);
});
