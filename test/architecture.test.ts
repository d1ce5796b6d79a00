/** The floors of docs/architecture.md, read from the folders: an import points down, or to the same floor in no circle. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Lowest floor first. Files of the `src` root stand on a floor of their own beside the folders. */
const FLOORS: readonly (readonly string[])[] = [
  ['src/errors.ts', 'src/version.ts'],
  ['src/redis', 'src/generation', 'src/storage', 'src/media', 'src/outbound'],
  ['src/store', 'src/queue', 'src/config', 'src/provider'],
  ['src/limits', 'src/polling'],
  ['src/pipeline', 'src/telemetry'],
  ['workers', 'src/reelhaul.ts'],
  ['src/http', 'src/index.ts'],
  ['src/cli', 'src/simulator'],
];

function filesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith('.ts') ? [relative(root, path)] : [];
  });
}

const files = [...filesBelow(join(root, 'src')), ...filesBelow(join(root, 'workers'))];

function floorOf(file: string): number {
  return FLOORS.findIndex((rooms) => rooms.some((room) => file === room || file.startsWith(`${room}/`)));
}

function specifiersOf(file: string): string[] {
  const source = readFileSync(join(root, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '');
  const found = source.matchAll(/(?:from\s+|import\s+|import\()\s*'([^']+)'/g);
  return [...found].map((match) => match[1]!);
}

const importsOf = new Map(
  files.map((file) => [
    file,
    specifiersOf(file)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => relative(root, resolve(root, dirname(file), specifier)).replace(/\.js$/, '.ts')),
  ]),
);

test('every file stands on a floor', () => {
  expect(files.filter((file) => floorOf(file) < 0)).toEqual([]);
});

test('no import points to a higher floor', () => {
  const upward = [...importsOf].flatMap(([file, targets]) =>
    targets.filter((to) => floorOf(to) > floorOf(file)).map((to) => `${file} → ${to}`),
  );
  expect(upward).toEqual([]);
});

test('no imports form a circle', () => {
  const circles: string[] = [];
  const finished = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) {
      circles.push([...path.slice(path.indexOf(file)), file].join(' → '));
      return;
    }
    if (finished.has(file)) return;
    for (const to of importsOf.get(file) ?? []) visit(to, [...path, file]);
    finished.add(file);
  };
  for (const file of files) visit(file, []);
  expect(circles).toEqual([]);
});

test('the command line and the simulator are imported by themselves only', () => {
  const entered = [...importsOf].flatMap(([file, targets]) =>
    targets
      .filter((to) => floorOf(to) === FLOORS.length - 1 && floorOf(file) !== FLOORS.length - 1)
      .map((to) => `${file} → ${to}`),
  );
  expect(entered).toEqual([]);
});

test.each([
  ['axios', /^src\/(provider|outbound)\//],
  ['bullmq', /^src\/queue\//],
  ['@bull-board/', /^src\/http\/dashboard\//],
  ['@aws-sdk/', /^src\/storage\/s3[\w-]*\.ts$/],
  ['hono', /^src\/http\//],
  ['@hono/', /^src\/http\//],
  ['commander', /^src\/cli\//],
  ['standardwebhooks', /^src\/outbound\//],
  ['request-filtering-agent', /^src\/outbound\/guarded-agent\.ts$/],
  ['pino-pretty', /^src\/telemetry\//],
  ['prom-client', /^src\/telemetry\/metrics\.ts$/],
  ['@opentelemetry/', /^src\/telemetry\/(tracing|active-trace)\.ts$/],
  ['js-redis-server', /^src\/cli\/demo\//],
])('%s has one home', (library, home) => {
  const strangers = files.filter(
    (file) => !home.test(file) && specifiersOf(file).some((s) => s === library || s.startsWith(library)),
  );
  expect(strangers).toEqual([]);
});

test('rules about a generation do no I/O, read no clock and no environment', () => {
  const impure = files.filter((file) => {
    if (!file.startsWith('src/generation/')) return false;
    const source = readFileSync(join(root, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '');
    // Both only compute: what an address is, and how a text is made small.
    return /Date\.now|Math\.random|process\.|from 'node:(?!(net|zlib|crypto)')/.test(source);
  });
  expect(impure).toEqual([]);
});

test('no file is named for odds and ends', () => {
  expect(
    files.filter((file) => /(utils?|helpers?|types|services|interfaces|misc|common)(\.ts|\/)/.test(file)),
  ).toEqual([]);
});
