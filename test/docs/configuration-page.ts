/**
 * docs/configuration.md, made of the schema (names, what each may be) and of .env.example (headings, defaults, and why),
 * which a test holds to the schema. `npm run docs:configuration` writes it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expectationOf, VARIABLES } from '../../src/config/config.js';

interface Variable {
  readonly name: string;
  readonly fallback: string;
  readonly why: string;
}

interface Chapter {
  readonly title: string;
  readonly variables: Variable[];
}

/** Headings are `# --- Title ---`; the comment above a variable is its own. */
function readExample(example: string): Chapter[] {
  const chapters: Chapter[] = [];
  let comment: string[] = [];
  for (const line of example.split('\n')) {
    const [, title] = /^# -{3,} (.+?) -{3,}$/.exec(line) ?? [];
    const [, name, fallback] = /^([A-Z][A-Z0-9_]*)=(.*)$/.exec(line) ?? [];
    if (title !== undefined) chapters.push({ title, variables: [] });
    else if (line.startsWith('# ')) comment.push(line.slice(2));
    else if (name !== undefined)
      chapters.at(-1)?.variables.push({ name, fallback: fallback ?? '', why: comment.join(' ') });
    if (!line.startsWith('# ') || title !== undefined) comment = [];
  }
  return chapters;
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');

function row({ name, fallback, why }: Variable): string {
  const shown = fallback === '' ? '' : `\`${fallback.replace(/^'(.*)'$/, '$1')}\``;
  return `| \`${name}\` | ${cell(shown)} | ${cell(expectationOf(name) ?? 'text')} | ${cell(why)} |`;
}

/** The page. Variables that the example does not list are an error, so that none is missing. */
export function renderConfiguration(example: string): string {
  const chapters = readExample(example);
  const listed = new Set(chapters.flatMap(({ variables }) => variables.map(({ name }) => name)));
  const missing = VARIABLES.filter((name) => !listed.has(name));
  if (missing.length > 0) throw new Error(`.env.example does not list ${missing.join(', ')}`);
  const tables = chapters.map(({ title, variables }) =>
    [
      `## ${title}`,
      '',
      '| Variable | Default | Expected | Why |',
      '|---|---|---|---|',
      ...variables.map(row),
    ].join('\n'),
  );
  return `# Configuration

<!-- Written by npm run docs:configuration from src/config/settings.ts and .env.example; a test holds it to them. -->

Everything is read from the environment once, at the start (\`node --env-file=.env …\`). Every problem is named in one message, and
no secret is repeated in it. Times are milliseconds. An empty value counts as not set. \`reelhaul doctor\` shows what is set,
with secrets hidden.

${tables.join('\n\n')}

Beside these, OpenTelemetry's own variables are heeded (\`OTEL_EXPORTER_OTLP_ENDPOINT\`, \`OTEL_TRACES_EXPORTER\`,
\`OTEL_TRACES_SAMPLER\`, \`OTEL_SERVICE_NAME\`, …): without the first two nothing of it is loaded ([operating.md](operating.md#traces)).
`;
}

const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // Compiled it stands one folder deeper.
  const root = file('../package.json');
  const at = (path: string) => root.replace(/package\.json$/, path);
  writeFileSync(at('docs/configuration.md'), renderConfiguration(readFileSync(at('.env.example'), 'utf8')));
}
