import { expect, test } from '@jest/globals';
import {
  checkRates,
  drawFaults,
  FAULT_SCRIPTS,
  FAULTS,
  parseRates,
  type FaultName,
} from '../../src/simulator/faults.js';
import { parseScript } from '../../src/simulator/script.js';

const names = Array.from({ length: 2000 }, (_, index) => `prompt ${index}#1`);

test.each(FAULTS)('the fault %s is a script that can be read', (fault) => {
  expect(Object.keys(parseScript(FAULT_SCRIPTS[fault].script))).not.toHaveLength(0);
});

test('rates are read from text', () => {
  expect(parseRates('submit-429=0.05, poll-html = 0.1')).toEqual({ 'submit-429': 0.05, 'poll-html': 0.1 });
  expect(parseRates('')).toEqual({});
});

test('a slot shares its rate out, each gives every other fault the same', () => {
  const shape = parseRates('shape=0.4');
  expect(shape).toEqual({ 'shape-b': 0.1, 'shape-o': 0.1, 'shape-callback': 0.1, 'shape-numbers': 0.1 });
  const each = parseRates('each=0.01, callback=0.8, submit-401=0');
  expect(Object.keys(each).sort()).toEqual([...FAULTS].sort());
  expect(each['submit-401']).toBe(0);
  expect(each['video-html']).toBe(0.01);
  expect(each['callback-lost']).toBeCloseTo(0.1);
});

test.each([
  ['submit-explode=0.1', 'expected each, a slot or one of the faults'],
  ['submit-429', 'submit-429: expected a rate from 0 to 1, got ""'],
  ['submit-429=2', 'submit-429: expected a rate from 0 to 1, got "2"'],
  ['submit-429=often', 'submit-429: expected a rate from 0 to 1'],
  ['submit-429=0.6,submit-500=0.6', 'expected the rates of all submit faults to be at most 1 together'],
  ['each=0.5', 'faults to be at most 1 together'],
])('the rates %s are refused', (text, message) => {
  expect(() => parseRates(text)).toThrow(message);
});

test('a rate that is no number is refused', () => {
  expect(() => checkRates({ 'submit-429': '0.1' })).toThrow('expected a rate from 0 to 1');
});

test('one seed draws the same faults, another seed draws others', () => {
  const rates = parseRates('each=0.02');
  const drawn = (seed: number): string => JSON.stringify(names.map((name) => drawFaults(rates, seed, name)));
  expect(drawn(7)).toBe(drawn(7));
  expect(drawn(7)).not.toBe(drawn(8));
});

test('faults strike about as often as their rates say, one of each slot at most', () => {
  const rates = parseRates('submit-429=0.25, submit-500=0.25, video-html=0.5');
  const counts = new Map<FaultName, number>();
  for (const name of names) {
    const { faults } = drawFaults(rates, 1, name);
    expect(new Set(faults.map((fault) => FAULT_SCRIPTS[fault].slot)).size).toBe(faults.length);
    for (const fault of faults) counts.set(fault, (counts.get(fault) ?? 0) + 1);
  }
  expect((counts.get('submit-429') ?? 0) / names.length).toBeCloseTo(0.25, 1);
  expect((counts.get('submit-500') ?? 0) / names.length).toBeCloseTo(0.25, 1);
  expect((counts.get('video-html') ?? 0) / names.length).toBeCloseTo(0.5, 1);
});
