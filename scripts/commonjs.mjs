/**
 * Emits the library a second time, as CommonJS: Jest and older tools cannot `require` ES modules. Takes what tsc made of
 * src/index.ts and of every file that it imports, and the declarations beside them.
 */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import { transform } from '@swc/core';

const FROM = 'dist/src';
const TO = 'dist/commonjs';
const IMPORTED = /\b(?:from|import)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g;

/** The file and all that it imports, directly or not. */
async function closure(entry, fileOf) {
  const found = new Set([entry]);
  for (const file of found) {
    const text = await readFile(file, 'utf8');
    for (const [, path] of text.matchAll(IMPORTED)) found.add(fileOf(normalize(join(dirname(file), path))));
  }
  for (const file of found)
    if (relative(FROM, file).startsWith('..')) throw new Error(`${file} is not part of the library`);
  return found;
}

async function place(file) {
  const to = join(TO, relative(FROM, file));
  await mkdir(dirname(to), { recursive: true });
  return to;
}

await rm(TO, { recursive: true, force: true });
for (const file of await closure(join(FROM, 'index.js'), (path) => path)) {
  const { code } = await transform(await readFile(file, 'utf8'), {
    filename: file,
    swcrc: false,
    jsc: { parser: { syntax: 'ecmascript' }, target: 'es2023' },
    module: { type: 'commonjs' },
  });
  await writeFile(await place(file), code);
}
for (const file of await closure(join(FROM, 'index.d.ts'), (path) => path.replace(/\.js$/, '.d.ts')))
  await cp(file, await place(file));
await writeFile(join(TO, 'package.json'), '{ "type": "commonjs" }\n');
