/**
 * Tests that need a program which may be missing. Without it they are skipped; the mark in their title lets the closing
 * lines of the suite count them (skipped-tests.mjs). Tests that need a real Redis server ask `realRedis` instead.
 */
import { spawnSync } from 'node:child_process';
import { describe, test } from '@jest/globals';

export interface Needed {
  readonly test: typeof test;
  readonly describe: typeof describe;
}

const answers = (program: string) => spawnSync(program, ['--version']).status === 0;

export function needs(program: string, present = answers(program)): Needed {
  if (present) return { test, describe };
  const title = (text: unknown) => `${String(text)} (needs ${program})`;
  return {
    test: renamed(test.skip, title) as unknown as typeof test,
    describe: renamed(describe.skip, title) as unknown as typeof describe,
  };
}

type Titled = (title: string, ...rest: never[]) => unknown;
interface Skip extends Titled {
  each(...table: never[]): Titled;
}

function renamed(skip: unknown, title: (text: unknown) => string): Skip {
  const given = skip as Skip;
  return Object.assign((text: string, ...rest: never[]) => given(title(text), ...rest), {
    each:
      (...table: never[]): Titled =>
      (text, ...rest) =>
        given.each(...table)(title(text), ...rest),
  });
}
