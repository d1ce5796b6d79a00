/** The dashboard and the alerts beside the docs fit what is really measured, and pass their own tools. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { startApi } from '../support/api.js';
import { needs } from '../support/needs.js';
import { createTestbed } from '../support/testbed.js';
import { readScrape, type Scrape } from './scrape.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
}
interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: { readonly summary: string; readonly runbook: string };
}

const { panels } = JSON.parse(read('docs/grafana/reelhaul.json')) as { panels: Panel[] };
const rules = (parse(read('docs/prometheus/alerts.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
);
const ofPanels = panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr }) => [title, expr] as const),
);
const ofRules = rules.map(({ alert, expr }) => [alert, expr] as const);
const named = (expr: string) => expr.match(/\b(?:reelhaul|nodejs|process)_\w+/g) ?? [];

let told: Scrape;
let exposition: string;
beforeAll(async () => {
  const bed = await createTestbed();
  const api = await startApi(bed);
  exposition = await (await fetch(`${api.url}/metrics`)).text();
  told = readScrape(exposition);
  await api.close();
  await bed.close();
});

test.each([...ofPanels, ...ofRules])('%s names only what is measured', (_, expr) => {
  expect(named(expr).length).toBeGreaterThan(0);
  expect(named(expr).filter((name) => !told.names.has(name))).toEqual([]);
});

test('everything that is measured of reelhaul is shown', () => {
  const shown = new Set(
    ofPanels.flatMap(([, expr]) => named(expr)).map((name) => name.replace(/_(bucket|sum|count)$/, '')),
  );
  const measured = [...told.names].filter(
    (name) => name.startsWith('reelhaul_') && !/_(bucket|sum)$/.test(name),
  );
  const hidden = measured.map((name) => name.replace(/_count$/, '')).filter((name) => !shown.has(name));
  expect(hidden).toEqual(['reelhaul_build_info']);
});

test('no two panels lie on each other, and each has its own id', () => {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)}:${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
});

test('docs/operating.md says what to do about every alert', () => {
  const headings = [...read('docs/operating.md').matchAll(/^#+ (.+)$/gm)].map(([, text]) => text!);
  for (const { alert, annotations } of rules) {
    expect(headings).toContain(alert);
    expect(annotations.runbook).toBe(`docs/operating.md#${alert.toLowerCase()}`);
  }
});

test('every alert is tried out', () => {
  const { tests } = parse(read('docs/prometheus/alerts.test.yml')) as {
    tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
  };
  const fired = tests.flatMap(({ alert_rule_test: tried }) =>
    tried.filter(({ exp_alerts: expected }) => expected.length > 0).map(({ alertname }) => alertname),
  );
  // One that is only seen to keep still may never speak.
  expect(rules.map(({ alert }) => alert).filter((alert) => !fired.includes(alert))).toEqual([]);
});

needs('promtool').describe('promtool', () => {
  const folder = mkdtempSync(join(tmpdir(), 'reelhaul-promtool-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const put = (path: string, text: string) => {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: root, encoding: 'utf8' });
    return { status, said: stdout + stderr };
  };

  test('has nothing to say against what is measured', () => {
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
      input: exposition,
      encoding: 'utf8',
    });
    expect([status, stdout + stderr]).toEqual([0, '']);
  });

  test('finds the configuration of compose valid, with the rules and the token where compose puts them', () => {
    const { services } = parse(read('docker-compose.yml')) as {
      services: { prometheus: { volumes: string[]; configs: { target: string }[] } };
    };
    const { volumes, configs } = services.prometheus;
    // The container's root, in a folder.
    for (const [from, to] of volumes.map((mount) => mount.split(':') as [string, string]))
      if (from.startsWith('./')) put(to, read(from));
    for (const { target } of configs) put(target, 'a-token');
    const config = join(folder, '/etc/prometheus/prometheus.yml');
    writeFileSync(config, readFileSync(config, 'utf8').replaceAll(' /etc/', ` ${folder}/etc/`));
    expect(run('check', 'config', config)).toMatchObject({
      status: 0,
      said: expect.stringContaining(`${rules.length} rules found`),
    });
  });

  test('finds the rules valid', () => {
    expect(run('check', 'rules', 'docs/prometheus/alerts.yml')).toMatchObject({
      status: 0,
      said: expect.stringContaining(`${rules.length} rules found`),
    });
  });

  test('sees them fire, and keep still, as they should', () => {
    const { status, said } = run('test', 'rules', 'docs/prometheus/alerts.test.yml');
    expect([status, said]).toEqual([0, expect.stringContaining('SUCCESS')]);
  });

  test('can read every expression of the dashboard', () => {
    const asRules = ofPanels.map(([, expr], i) => ({
      record: `panel:${i}`,
      expr: expr.replaceAll('$__rate_interval', '1m').replaceAll('$job', '.*'),
    }));
    const file = join(folder, 'panels.yml');
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'panels', rules: asRules }] }));
    const { status, said } = run('check', 'rules', file);
    expect([status, said]).toEqual([0, expect.stringContaining(`${ofPanels.length} rules found`)]);
  });
});
