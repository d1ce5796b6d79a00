import { expect, test } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { readCallback } from '../../src/provider/callback.js';
import { answered, pollOf, submitOf } from './exchanges.js';

interface Fixture {
  readonly source: string;
  readonly call: 'submit' | 'poll' | 'callback';
  readonly httpStatus: number | null;
  readonly headers?: Readonly<Record<string, string>>;
  /** The task that was asked for, when polling. */
  readonly taskId?: string;
  readonly body: unknown;
  readonly expect: Record<string, unknown>;
}

const FOLDER = new URL('./fixtures/', import.meta.url);
const fixtures = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.json'))
  .map((file) => ({ file, ...(JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Fixture) }));

test('there are fixtures of all three calls', () => {
  expect(new Set(fixtures.map(({ call }) => call))).toEqual(new Set(['submit', 'poll', 'callback']));
});

test.each(fixtures)('$file is read as documented ($source)', (fixture) => {
  const exchange = answered(fixture.httpStatus ?? 0, fixture.body, fixture.headers);
  const read = {
    submit: () => submitOf(exchange),
    poll: () => pollOf(exchange, fixture.taskId),
    callback: () => readCallback(exchange.body),
  }[fixture.call]();
  expect(read).toMatchObject(fixture.expect);
});
