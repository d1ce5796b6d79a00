import { expect, test } from '@jest/globals';
import { parseScript, scriptTextIn, scriptTextOfHeader } from '../../src/simulator/script.js';
import { stepAt } from '../../src/simulator/script-fields.js';
import { ScriptError } from '../../src/simulator/script-values.js';

test('a script is directives joined by commas, with white space where one likes', () => {
  expect(parseScript(' duration = 3s ,shape=B, visible-after=never')).toEqual({
    durationMs: 3000,
    shape: 'B',
    visibleAfterMs: Infinity,
  });
  expect(parseScript('')).toEqual({});
});

test('steps are joined by ">", have arguments and counts, and are followed by ok', () => {
  const { submit } = parseScript('submit=429*2 > html-after:503 > 500-after > reset-after*forever');
  expect([0, 1, 2, 3, 4, 99].map((index) => stepAt(submit ?? [], index).word)).toEqual([
    '429',
    '429',
    'html-after',
    '500-after',
    'reset-after',
    'reset-after',
  ]);
  expect(stepAt(submit ?? [], 2).argument).toBe('503');
  expect(stepAt(parseScript('poll=500').poll ?? [], 1).word).toBe('ok');
});

test.each([
  ['wobble=1', 'expected one of the directives submit, '],
  ['duration', 'expected name=value joined by commas, got "duration"'],
  ['duration=3s,', 'expected name=value joined by commas, got ""'],
  ['duration=3', 'duration: expected a duration such as 250ms, 3s or 2m, got "3"'],
  ['duration=3s, duration=4s', 'expected duration at most once'],
  ['submit=explode', 'submit: expected steps joined by ">", each one of ok, double, '],
  ['submit=200', '(not "200"), got "200"'],
  ['submit=429*0', 'submit: expected a count from 1, or forever, got "429*0"'],
  ['submit=ok:3', 'submit: expected ok without an argument, got "ok:3"'],
  ['submit=toString', 'submit: expected steps'],
  ['poll=500-after', 'poll: expected steps joined by ">"'],
  ['poll=drip:soon', 'poll: expected drip: followed by a duration'],
  ['video=expired:99', 'video: expected expired: followed by an HTTP status'],
  ['shape=X', 'shape: expected one of W, B, O, C, got "X"'],
  ['code=201', 'code: expected 200, "200", 0 or success, got "201"'],
  ['result=perhaps', 'result: expected success, failed, or failed: and a failure code'],
  ['retry-after=soon', 'retry-after: expected none, a duration such as 2s, or date: and a duration'],
  ['size=2', 'size: expected a size such as 500KB, 50MB or 2GB, got "2"'],
  ['no-url=0', 'no-url: expected a count from 1, or forever'],
  ['stuck=never', 'stuck: expected a duration such as 250ms or 3s, or forever'],
  ['callback=double+shout', 'callback: expected one of once, lost, double'],
  ['queued-word=', 'queued-word: expected a text, got ""'],
])('%s is refused and says why', (text, message) => {
  expect(() => parseScript(text)).toThrow(ScriptError);
  expect(() => parseScript(text)).toThrow(message);
});

test('a prompt may hold several scripts, a header needs no brackets', () => {
  expect(scriptTextIn('a fox [sim: shape=B] in snow [SIM: duration=1s]')).toBe(' shape=B, duration=1s');
  expect(scriptTextIn('a fox [simply] running')).toBe('');
  expect(() => scriptTextIn('a fox [sim: shape=B')).toThrow('expected ] after [sim:');
  expect(scriptTextOfHeader('shape=B')).toBe('shape=B');
  expect(scriptTextOfHeader('[sim: shape=B]')).toBe(' shape=B');
});

test('durations know their units', () => {
  const durations = ['0', '250ms', '1.5s', '2m', '1h'].map(
    (text) => parseScript(`duration=${text}`).durationMs,
  );
  expect(durations).toEqual([0, 250, 1500, 120_000, 3_600_000]);
  expect(() => parseScript('duration=-1s')).toThrow(ScriptError);
});
