/** Dependencies point down only (words, hands, hub, doors), and each vendor library has one home. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('..', import.meta.url));

function filesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith('.ts') ? [relative(root, path)] : [];
  });
}

const files = [...filesBelow(join(root, 'src')), ...filesBelow(join(root, 'workers'))];

const words =
  /^src\/(errors|generation\/(states|schedule|sketch|lesson|request|options|record|packed|keys|slots|trail)|limits\/(prices|line-script|spend-script)|provider\/outcomes)\.ts$/;
const hub =
  /^src\/(reelhaul|enqueue|decisions|producer|pipeline|recall|runner|timetable-runner|context|hub)\.ts$/;
const doors = /^(workers\/|src\/(http|demo|cli)\/|src\/(cli|index)\.ts$)/;

function layerOf(file: string): number {
  if (doors.test(file)) return 3;
  if (hub.test(file)) return 2;
  return words.test(file) ? 0 : 1;
}
const LAYERS = ['words', 'hands', 'hub', 'doors'];

function importsOf(file: string): string[] {
  const source = readFileSync(join(root, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '');
  const found = source.matchAll(/(?:from\s+|import\s+|import\()\s*'([^']+)'/g);
  return [...found].map((match) => match[1]!);
}

function target(file: string, specifier: string): string {
  return relative(root, resolve(root, dirname(file), specifier)).replace(/\.js$/, '.ts');
}

test.each(files)('%s imports only from its own layer or below', (file) => {
  const upwards = importsOf(file)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => target(file, specifier))
    .filter((to) => layerOf(to) > layerOf(file))
    .map((to) => `${file} (${LAYERS[layerOf(file)]}) imports ${to} (${LAYERS[layerOf(to)]})`);
  expect(upwards).toEqual([]);
});

test('a door is opened by the command line only', () => {
  const doorOf = (file: string) => (file.startsWith('src/http/') ? 'src/http' : dirname(file));
  const sameDoor = (a: string, b: string) => doorOf(a) === doorOf(b) && doorOf(a) !== 'src';
  const opened = files
    .filter((file) => !/^src\/cli(\/|\.ts$)/.test(file))
    .flatMap((file) =>
      importsOf(file)
        .filter((s) => s.startsWith('.'))
        .map((s) => [file, target(file, s)] as const),
    )
    .filter(([from, to]) => layerOf(to) === 3 && !sameDoor(from, to))
    .map(([from, to]) => `${from} → ${to}`);
  expect(opened).toEqual([]);
});

test.each([
  ['axios', /^src\/provider\//],
  ['bullmq', /^src\/(queues|runner)\.ts$/],
  ['@bull-board/', /^src\/http\/dashboard\/(queues|board-of-polls)\.ts$/],
  [
    'ioredis',
    /^src\/(redis|redis-sentinels|queues|runner|timetable|timetable-runner|standing|hub|reelhaul|enqueue|decisions|producer|demo\/redis-server|telemetry\/(figures|fleet|health)|(generation|limits)\/\w+)\.ts$/,
  ],
  ['@aws-sdk/', /^src\/storage\/s3[\w-]*\.ts$/],
  ['hono', /^src\/http\//],
  ['@hono/', /^src\/http\//],
  ['commander', /^src\/(cli|cli\/\w+)\.ts$/],
  ['standardwebhooks', /^src\/notification\//],
  ['request-filtering-agent', /^src\/provider\/guarded-agent\.ts$/],
  ['pino-pretty', /^src\/telemetry\//],
  ['prom-client', /^src\/telemetry\/metrics\.ts$/],
  ['@opentelemetry/', /^src\/telemetry\/(tracing|active-trace)\.ts$/],
  ['js-redis-server', /^src\/demo\//],
])('%s has one home', (library, home) => {
  const strangers = files.filter(
    (file) => !home.test(file) && importsOf(file).some((s) => s === library || s.startsWith(library)),
  );
  expect(strangers).toEqual([]);
});

test('words do no I/O, read no clock and no environment', () => {
  const impure = files.filter((file) => {
    if (layerOf(file) !== 0) return false;
    const source = readFileSync(join(root, file), 'utf8');
    // Both only compute: what an address is, and how a text is made small.
    return /Date\.now|Math\.random|process\.|from 'node:(?!(net|zlib)')/.test(source);
  });
  expect(impure).toEqual([]);
});

test('no file is a drawer for odds and ends', () => {
  expect(
    files.filter((file) => /(utils?|helpers?|types|services|interfaces|misc|common)(\.ts|\/)/.test(file)),
  ).toEqual([]);
});
