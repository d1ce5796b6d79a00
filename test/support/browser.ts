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

/** What axe finds wrong with the page as it is shown now, one line each. */
export async function violations(page: Page): Promise<readonly string[]> {
  const source = await (axeSource ??= readFile(axeFile, 'utf8'));
  // Evaluated from outside, so that the page's own policy stays in force.
  await page.evaluate(source);
  return page.evaluate(async () => {
    type Rule = { id: string; nodes: { html: string; failureSummary: string }[] };
    type Axe = { run(options: object): Promise<{ violations: Rule[] }> };
    const { axe } = globalThis as unknown as { axe: Axe };
    const { violations: found } = await axe.run({ resultTypes: ['violations'] });
    return found.flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`),
    );
  });
}
