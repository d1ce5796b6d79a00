/**
 * Names of stored files. A template gives each generation its own folder; the files in it are `video.mp4`,
 * `poster.jpg`, `last-frame.png` (the extension follows the bytes) and `manifest.json`. Pure.
 *
 * A template knows `{yyyy}`, `{mm}`, `{dd}` (UTC, of the creation), `{generationId}` (required: it keeps two generations
 * apart), `{tenant}` and `{metadata.name}`. Values come from apps, so they are made harmless: no value can add a
 * folder, leave one, or hide a file.
 */
import { InvalidInputError, type Problem } from '../errors.js';

export const DEFAULT_KEY_TEMPLATE = '{yyyy}/{mm}/{dd}/{generationId}';

/** What a template is filled with. */
export interface KeyFields {
  readonly generationId: string;
  /** Epoch milliseconds. */
  readonly createdAt: number;
  readonly tenant: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export type AssetName = 'video' | 'poster' | 'lastFrame';

const FILE_NAMES: Readonly<Record<AssetName, string>> = {
  video: 'video',
  poster: 'poster',
  lastFrame: 'last-frame',
};

/** S3 takes 1,024 bytes of key; some are left for a bucket prefix and the file name. */
const MAX_KEY_BYTES = 900;
/** `/last-frame.webp` and `/manifest.json`, with room. */
const MAX_FILE_NAME_BYTES = 24;
/** Common file systems take 255 bytes per name. */
const MAX_PART_BYTES = 255;
/** In code points. */
const MAX_VALUE_LENGTH = 60;
/** Most bytes of one value, tried in this order until every part of the path and the whole of it are short enough. */
const VALUE_BYTES = [240, 160, 120, 90, 60, 40, 24, 12] as const;
/** What a value takes at least, when it is not cut further: an id has 36 bytes. */
const FIXED_BYTES: Readonly<Record<string, number>> = { generationId: 36, yyyy: 4, mm: 2, dd: 2 };

const PLACEHOLDER = /\{([^{}]*)\}/g;
const KNOWN_PLACEHOLDER = /^(yyyy|mm|dd|generationId|tenant|metadata\.[A-Za-z0-9_-]{1,64})$/;
const LITERAL = /^[A-Za-z0-9._=@+ /-]*$/;

/** What is wrong with a template; empty when nothing is. `path` names it in the problems. */
export function keyTemplateProblems(template: string, path = 'keyTemplate'): Problem[] {
  const problems: Problem[] = [];
  const complain = (message: string): void => {
    problems.push({ path, message });
  };
  const names = [...template.matchAll(PLACEHOLDER)].map(([, name = '']) => name);
  for (const name of names.filter((name) => !KNOWN_PLACEHOLDER.test(name))) {
    complain(`expected yyyy, mm, dd, generationId, tenant or metadata.name in braces, got {${name}}`);
  }
  if (!names.includes('generationId')) {
    complain(
      `expected {generationId} in it, since files of two generations would meet, got ${JSON.stringify(template)}`,
    );
  }
  const literal = template.replace(PLACEHOLDER, '');
  if (!LITERAL.test(literal)) {
    complain(
      `expected letters, digits, ". _ = @ + -", spaces and / around the braces, got ${JSON.stringify(template)}`,
    );
  }
  const shortest = template.replace(PLACEHOLDER, (_whole, name: string) =>
    'x'.repeat(FIXED_BYTES[name] ?? Math.min(...VALUE_BYTES)),
  );
  if (!fits(shortest)) {
    complain(
      `expected at most ${MAX_PART_BYTES} bytes in each part and ${MAX_KEY_BYTES} in all, got ${JSON.stringify(template)}`,
    );
  }
  // A placeholder is never empty, so any letter can stand for it.
  if (template.replace(PLACEHOLDER, 'x').split('/').some(isBadPart)) {
    complain(
      `expected a relative path whose parts are not empty, do not begin with a dot and do not end with a dot or space, got ${JSON.stringify(template)}`,
    );
  }
  return problems;
}

/**
 * The folder of one generation, without a slash at its end.
 * @throws InvalidInputError when the template or what it comes to cannot be used.
 */
export function folderFor(template: string, fields: KeyFields): string {
  const problems = keyTemplateProblems(template);
  if (problems.length > 0)
    throw new InvalidInputError('The template of object names cannot be used', problems);
  const created = new Date(fields.createdAt);
  const values: Readonly<Record<string, unknown>> = {
    yyyy: String(created.getUTCFullYear()).padStart(4, '0'),
    mm: String(created.getUTCMonth() + 1).padStart(2, '0'),
    dd: String(created.getUTCDate()).padStart(2, '0'),
    generationId: fields.generationId,
    tenant: fields.tenant,
  };
  const valueOf = (name: string): unknown => {
    if (!name.startsWith('metadata.')) return values[name];
    const field = name.slice('metadata.'.length);
    return Object.hasOwn(fields.metadata, field) ? fields.metadata[field] : null;
  };
  const cutAt = (maxBytes: number): string =>
    template.replace(PLACEHOLDER, (_whole, name: string) =>
      harmless(valueOf(name), FIXED_BYTES[name] === undefined ? maxBytes : MAX_PART_BYTES),
    );
  const folders = VALUE_BYTES.map(cutAt);
  const folder = folders.find(fits) ?? folders.at(-1)!;
  assertKey(folder);
  return folder;
}

/** Short enough for file systems and object stores, with the name of a file behind it. */
function fits(folder: string): boolean {
  return (
    Buffer.byteLength(folder) <= MAX_KEY_BYTES - MAX_FILE_NAME_BYTES &&
    folder.split('/').every((part) => Buffer.byteLength(part) <= MAX_PART_BYTES)
  );
}

/** The key of an asset without its extension: `…/last-frame`. */
export function assetKeyBase(folder: string, asset: AssetName): string {
  return `${folder}/${FILE_NAMES[asset]}`;
}

export function manifestKey(folder: string): string {
  return `${folder}/manifest.json`;
}

/** Where the bytes of an upload lie. */
export const inputKey = (id: string): string => `inputs/${id}`;

/**
 * Where the files of a tenant lie that its requests may name by their key; null for a tenant whose name is no plain part of
 * a path, since two of them could share a folder.
 */
export const libraryFolder = (tenant: string): string | null =>
  /^[A-Za-z0-9][A-Za-z0-9_@+-]{0,59}$/.test(tenant) ? `library/${tenant}/` : null;

/** Refuses a key that is no relative path of plain parts. @throws InvalidInputError */
export function assertKey(key: string): void {
  const parts = key.split('/');
  const isBad =
    Buffer.byteLength(key) > MAX_KEY_BYTES ||
    parts.some(
      (part) => part === '' || part === '.' || part === '..' || Buffer.byteLength(part) > MAX_PART_BYTES,
    ) ||
    // eslint-disable-next-line no-control-regex -- control characters are what is refused
    /[\\\u0000-\u001f\u007f]/.test(key) ||
    // Half of a surrogate pair has no bytes of its own.
    /[\ud800-\udfff]/u.test(key);
  if (isBad) {
    throw new InvalidInputError('The key cannot be used', [
      {
        path: 'key',
        message: `expected a relative path of plain parts, got ${JSON.stringify(key.slice(0, 200))}`,
      },
    ]);
  }
}

function isBadPart(part: string): boolean {
  return part === '' || part.startsWith('.') || /[. ]$/.test(part) || part.startsWith(' ');
}

/** A value as one part of a path, or a piece of one: never empty, no separators, no dots at its ends. */
function harmless(value: unknown, maxBytes: number): string {
  const text =
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
  const plain = text
    .normalize('NFC')
    .replace(/[^\p{L}\p{N}._@+-]/gu, '-')
    .replace(/^[.]+|[.]+$/g, '-');
  const cut = cutToBytes(plain, maxBytes).replace(/[.]+$/, '-');
  return cut === '' ? '_' : cut;
}

/** Whole code points: half of one could not be written. */
function cutToBytes(text: string, maxBytes: number): string {
  let cut = '';
  let sizeBytes = 0;
  for (const char of Array.from(text).slice(0, MAX_VALUE_LENGTH)) {
    sizeBytes += Buffer.byteLength(char);
    if (sizeBytes > maxBytes) break;
    cut += char;
  }
  return cut;
}
