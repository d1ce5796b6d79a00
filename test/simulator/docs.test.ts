import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { FAULT_SCRIPTS, FAULTS } from '../../src/simulator/faults.js';
import { OUTAGE_MODES } from '../../src/simulator/outages.js';
import { DIRECTIVES, parseScript, scriptTextIn } from '../../src/simulator/script.js';
import { CALLBACK_MODES } from '../../src/simulator/script-fields.js';
import { ASSET_STEPS, POLL_STEPS, SUBMIT_STEPS } from '../../src/simulator/script-values.js';

const whole = readFileSync(new URL('../../docs/simulator.md', import.meta.url), 'utf8');
/** Without the fenced examples. */
const page = whole.replaceAll(/^```[^]*?^```$/gm, '');
const chapter = (title: string): string =>
  (page.split(new RegExp(`^#+ ${title}$`, 'm'))[1] ?? '').split(/^#+ /m)[0] ?? '';
/** Words in backticks, wherever they stand. */
const quoted = (text: string): Set<string> =>
  new Set([...text.matchAll(/`([^`\n]+)`/g)].map(([, word = '']) => word));

test('the page names every directive, step and mode, and each fault with its script', () => {
  const words = quoted(page);
  for (const directive of Object.keys(DIRECTIVES)) expect(words).toContain(directive);
  for (const mode of [...CALLBACK_MODES, ...OUTAGE_MODES]) expect(words).toContain(mode);
  for (const [title, steps] of [
    ['Submit', SUBMIT_STEPS],
    ['Poll', POLL_STEPS],
    ['Files', ASSET_STEPS],
  ] as const) {
    const named = quoted(chapter(title));
    expect(Object.keys(steps).filter((step) => !named.has(step))).toEqual([]);
  }
  for (const fault of FAULTS) {
    const { slot, script } = FAULT_SCRIPTS[fault];
    expect(page).toContain(`| \`${slot}\` | \`${fault}\` | \`${script}\` |`);
  }
});

test('the scripts on the page can be read', () => {
  const examples = [...whole.matchAll(/^.*\[sim: .*\]$/gm)];
  expect(examples).not.toHaveLength(0);
  for (const [example] of examples) expect(() => parseScript(scriptTextIn(example))).not.toThrow();
  for (const example of page.matchAll(/`((?:submit|video)=[^`]+)`/g)) {
    expect(() => parseScript(example[1] ?? '')).not.toThrow();
  }
});
