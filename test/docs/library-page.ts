/**
 * docs/library.md, made of the docstrings of what the package exports and of the schemas that check requests and options.
 * `npm run docs:library` writes it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { optionsSchema } from '../../src/generation/options.js';
import { requestSchema } from '../../src/generation/request.js';

/** In the order of the page. Every other type that the package exports is named in `ELSEWHERE`. */
const TYPES = [
  'WaitOptions',
  'ListQuery',
  'Page',
  'EventFilter',
  'GenerationEvent',
  'Generation',
  'Failure',
  'Assets',
  'Asset',
  'Warning',
  'Enqueued',
  'EnqueueItem',
  'EnqueueResult',
  'CancelResult',
  'Decision',
  'Outlook',
  'Wait',
  'EraseOptions',
  'Erased',
  'TenantErased',
  'StoredInput',
  'Notification',
  'DeadNotifications',
  'Spend',
  'Spent',
  'Problem',
];
/** Told in chapters of their own, or on other pages. */
export const ELSEWHERE = [
  ...['Reelhaul', 'CreateReelhaulOptions', 'EnqueueOptions', 'GenerationRequest', 'GenerationRequestInput'],
  ...['Charge', 'FailureCode', 'State', 'WaitCode', 'IgnoredOption', 'LimitsOverview'],
];

interface Member {
  readonly signature: string;
  readonly doc: string;
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
const code = (text: string) => `\`${text.replaceAll('|', '\\|')}\``;

/** The text of a comment, without its stars. What it throws is a sentence of its own. */
function textOf(comment: string | undefined): string {
  const text = (comment ?? '')
    .replace(/^\s*\/\*\*|\*\/\s*$/g, '')
    .replaceAll(/^\s*\* ?/gm, '')
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/ ?@returns (\w)/g, ' Returns $1')
    .replaceAll(/ ?@param /g, ' ')
    .trim();
  return text.replace(
    /\.? ?@throws (.*?)\.?$/,
    (_, thrown: string, at: number) => `${at === 0 ? '' : '. '}Throws ${thrown}.`,
  );
}

/** Members stand two spaces in; prettier ends each with a semicolon. */
function membersOf(body: string): Member[] {
  const found = body.matchAll(
    /^ {2}(\/\*\*(?:[^*]|\*(?!\/))*\*\/\n {2})?(?:readonly )?(\w[\s\S]*?;)\n(?= {2}(?:\/\*\*|\w)|$)/gm,
  );
  return [...found].map(([, comment, signature]) => ({
    signature: signature!
      .replaceAll(/\s+/g, ' ')
      .replaceAll(/\( /g, '(')
      .replaceAll(/,? \)/g, ')')
      .replace(/;$/, ''),
    doc: textOf(comment),
  }));
}

/** What all of src declares: interfaces by their members, other types by their text. */
function readDeclarations(
  root: string,
): Map<string, { doc: string; members: Member[] | null; text: string }> {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter(
    (path) => path.endsWith('.ts') && !path.startsWith('simulator'),
  );
  const source = files
    .sort()
    .map((path) => readFileSync(join(root, 'src', path), 'utf8'))
    .join('\n');
  const found = source.matchAll(
    /^(\/\*\*(?:[^*]|\*(?!\/))*\*\/\n)?export (?:interface (\w+)(?: extends ([^{]+?))? \{\n([\s\S]*?)^\}|type (\w+) =([\s\S]*?);\n(?=\n|export|\/\*\*))/gm,
  );
  return new Map(
    [...found].map(([text, comment, name, base, body, alias]) => [
      (name ?? alias)!,
      {
        doc: [textOf(comment), base === undefined ? '' : `With the fields of \`${base}\`.`]
          .filter(Boolean)
          .join(' '),
        members: body === undefined ? null : membersOf(body),
        text: text
          .replace(comment ?? '', '')
          .replace(/^export /, '')
          .trimEnd(),
      },
    ]),
  );
}

function tableOf(members: readonly Member[]): string {
  const rows = members.map(({ signature, doc }) => {
    const [, name = '', type = ''] = /^(\w+\??): (.*)$/.exec(signature) ?? [];
    return `| \`${name}\` | ${code(type)} | ${cell(doc)} |`;
  });
  return ['| Field | Type | Meaning |', '|---|---|---|', ...rows].join('\n');
}

/** As zod makes it. */
interface Json {
  readonly type?: string;
  readonly const?: string | number;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Json[];
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
  readonly description?: string;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Json>>;
}

/** What a value may be. */
function expected(schema: Json): string {
  const { type = '', maxLength, minimum, maximum, anyOf } = schema;
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum) return schema.enum.join(', ');
  if (anyOf) return [...new Set(anyOf.map(expected))].filter(Boolean).join(' or ');
  if (type === 'integer')
    return minimum === undefined || maximum === undefined
      ? 'whole number'
      : `whole number from ${minimum} to ${maximum}`;
  if (type !== 'string') return type;
  return maxLength === undefined ? 'text' : `text, at most ${maxLength} characters`;
}

/** One row for each field, those of objects inside behind a dot. */
function fieldRows({ properties = {}, required = [] }: Json, prefix = ''): string[] {
  return Object.entries(properties).flatMap(([name, inner]) => {
    const path = `${prefix}${name}`;
    const byDefault = inner.default === undefined ? '' : `; default \`${JSON.stringify(inner.default)}\``;
    const what = `${expected(inner)}${required.includes(name) ? '; required' : ''}${byDefault}`;
    const row = `| \`${path}\` | ${cell(what)} | ${cell(inner.description ?? '')} |`;
    return [row, ...(inner.properties === undefined ? [] : fieldRows(inner, `${path}.`))];
  });
}

function fieldsOf(schema: z.ZodType): string {
  const made = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Json;
  return ['| Field | Expected | Meaning |', '|---|---|---|', ...fieldRows(made)].join('\n');
}

/** Error classes that the package exports, with their codes. */
function errorRows(root: string): string {
  const source = readFileSync(join(root, 'src/errors.ts'), 'utf8');
  const exported = new Set(readFileSync(join(root, 'src/index.ts'), 'utf8').match(/\w+Error\b/g));
  const classes = source.matchAll(/^(\/\*\*(?:[^*]|\*(?!\/))*\*\/\n)export class (\w+)([\s\S]*?)^\}/gm);
  const rows = [...classes].flatMap(([, comment, name, body]) => {
    if (!exported.has(name!)) return [];
    const [, own] = /super\(\s*'(\w+)'/.exec(body!) ?? [];
    const errorCode = own ?? (/extends InvalidInputError/.test(body!) ? 'invalid_input' : '');
    return [`| \`${name}\` | ${errorCode === '' ? '' : code(errorCode)} | ${cell(textOf(comment))} |`];
  });
  return ['| Class | `code` | When |', '|---|---|---|', ...rows].join('\n');
}

/** @param root the folder of the package */
export function renderLibrary(root: string): string {
  const declared = readDeclarations(root);
  const of = (name: string) => {
    const found = declared.get(name);
    if (!found) throw new Error(`src exports no ${name}`);
    return found;
  };
  const verbs = (of('Reelhaul').members ?? []).map(({ signature, doc }) =>
    `### ${/^\w+/.exec(signature)![0]}\n\n\`\`\`ts\n${signature}\n\`\`\`\n\n${doc}`.trimEnd(),
  );
  const types = TYPES.map((name) => {
    const { doc, members, text } = of(name);
    const body = members === null ? `\`\`\`ts\n${text}\n\`\`\`` : tableOf(members);
    return [`### ${name}`, doc, body].filter(Boolean).join('\n\n');
  });
  return `# The library

<!-- Written by npm run docs:library from the docstrings in src; a test holds it to them. -->

\`\`\`ts
import { createReelhaul } from 'reelhaul';

const reelhaul = await createReelhaul();
\`\`\`

**Over** means \`succeeded\`, \`failed\`, \`expired\` or \`canceled\`. \`unconfirmed\` is not over: it lasts until a callback, a policy or
\`decide\` settles it, so give \`waitFor\` a \`timeoutMs\`. [states.md](states.md) tells the states, the failure codes and what \`charge\`
means. Instants are epoch milliseconds. The same verbs over HTTP: [http.md](http.md).

## createReelhaul

\`createReelhaul(options?: CreateReelhaulOptions): Promise<Reelhaul>\`. It reads the environment ([configuration.md](configuration.md)),
connects, and checks Redis. Throws \`ConfigError\` or \`RedisUnusableError\`.

${tableOf(of('CreateReelhaulOptions').members ?? [])}

## The request

The first argument of \`enqueue\`. Only \`prompt\` is required; the provider wants an \`image\` as well for most models.

${fieldsOf(requestSchema)}

Other fields of \`options\` are passed on to the provider.

## Options of enqueue

The second argument of \`enqueue\`, and beside \`request\` in each item of \`enqueueMany\`.

${fieldsOf(optionsSchema)}

## Verbs

${verbs.join('\n\n')}

## Errors

All of them are \`ReelhaulError\`. Decide by class or \`code\`, never by the message.

${errorRows(root)}

## Types

${types.join('\n\n')}
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // Compiled it stands one folder deeper.
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  writeFileSync(join(root, 'docs/library.md'), renderLibrary(root));
}
