/**
 * A real Chromium for tests. `browserPath` is where it is installed: `CHROMIUM`, or the first one on PATH. Without one the
 * tests of the browser are skipped.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium, type Browser, type Page } from 'playwright-core';
import { findOnPath } from '../../src/cli/demo/redis-server.js';

export const browserPath: string | null =
  process.env['CHROMIUM'] || (await findOnPath(['chromium', 'chromium-browser', 'google-chrome']));

/** Nothing leaves this machine, and nothing asks. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launchBrowser(): Promise<Browser> {
  if (browserPath === null) throw new Error('no Chromium is installed');
  return chromium.launch({ executablePath: browserPath, args: FLAGS });
}

const axeFile = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
let axeSource: Promise<string> | null = null;

export interface Examined {
  /** The rules that held. */
  readonly passed: readonly string[];
  /** What axe finds wrong with the page as it is shown now, one line each; empty when nothing is. */
  readonly violations: readonly string[];
}

/** What axe says of the page as it is shown now. */
export async function examine(page: Page): Promise<Examined> {
  const source = await (axeSource ??= readFile(axeFile, 'utf8'));
  // Evaluated from outside, so that the page's own policy stays in force.
  await page.evaluate(source);
  return page.evaluate(async () => {
    type Rule = { id: string; nodes: { html: string; failureSummary: string }[] };
    type Axe = { run(): Promise<{ passes: Rule[]; violations: Rule[] }> };
    const { passes, violations: found } = await (globalThis as unknown as { axe: Axe }).axe.run();
    return {
      passed: passes.map(({ id }) => id),
      violations: found.flatMap(({ id, nodes }) =>
        nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`),
      ),
    };
  });
}

export const violations = async (page: Page): Promise<readonly string[]> => (await examine(page)).violations;
