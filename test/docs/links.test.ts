/** What the documents point at is there: files, headings in them, and commands of this package. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { createOpenApiDocument } from '../../src/http/openapi.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const pages = [
  'README.md',
  'CHANGELOG.md',
  ...readdirSync(join(root, 'docs')).flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
];

/** As GitHub names a heading. */
const anchorsIn = (page: string) =>
  [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );

const { files } = JSON.parse(read('package.json')) as { files: string[] };
/** What npm packs: the files that package.json lists, and some always. */
const isPacked = (path: string) =>
  [...files, 'README.md', 'LICENSE', 'package.json'].some(
    (one) => path === one || path.startsWith(`${one}/`),
  );

test.each(pages)('every file that %s links to is in the package as well', (path) => {
  const targets = [...read(path).matchAll(/\]\((?!https?:)([^)#\s]+)/g)].map(([, file]) =>
    join(dirname(path), file!),
  );
  expect(targets.filter((target) => !isPacked(target))).toEqual([]);
});

test('docs/http.md lists every route of the OpenAPI document, and no other', () => {
  const listed = [...read('docs/http.md').matchAll(/^\| `([A-Z]+) (\S+)` \|/gm)].map(
    ([, method, route]) => `${method} ${route!.replaceAll(/:(\w+)/g, '{$1}')}`,
  );
  const { paths } = createOpenApiDocument();
  const routes = Object.entries(paths).flatMap(([route, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${route}`),
  );
  expect(listed.toSorted()).toEqual(routes.toSorted());
});

test.each(pages)('no link of %s leads nowhere', (path) => {
  const links = [...read(path).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)];
  const dead = links.filter(([, file, anchor]) => {
    const target = file ? join(dirname(path), file) : path;
    if (!existsSync(join(root, target))) return true;
    return anchor !== undefined && !anchorsIn(read(target)).includes(anchor);
  });
  expect(dead.map(([link]) => link)).toEqual([]);
});

test.each(pages)('every npm run of %s is a command of the package', (path) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const named = [...read(path).matchAll(/npm run (?:-s |--silent )?([\w:-]+)/g)].map(([, name]) => name!);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});
