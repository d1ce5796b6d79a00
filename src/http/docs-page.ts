/** `/docs`: the OpenAPI document as a page for people. One file of HTML, no script, nothing from other hosts. */
import type { OpenApiDocument, Operation } from './openapi.js';

/** For the page: only its own style, and nothing else at all. */
export const PAGE_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const STYLE = `
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.8rem;border:1px solid #8884;border-radius:6px}
h2{margin-top:2.5rem;border-bottom:1px solid #8884}summary{cursor:pointer;padding:.3rem 0}
table{border-collapse:collapse}td{padding:.2rem .8rem .2rem 0;vertical-align:top}
.m{display:inline-block;min-width:3.2rem;font-weight:600}details>*:not(summary){margin-left:1.2rem}`;

function escape(text: unknown): string {
  const shown = typeof text === 'string' ? text : JSON.stringify(text);
  return shown
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

const link = (schema: unknown): string => {
  const text = JSON.stringify(schema);
  const names = [...text.matchAll(/#\/components\/schemas\/(\w+)/g)].map(([, name]) => name!);
  return names.map((name) => `<a href="#${name}">${name}</a>`).join(' or ');
};

function operation(
  path: string,
  method: string,
  { summary, parameters, requestBody, responses }: Operation,
): string {
  const rows = parameters.map(
    (p) =>
      `<tr><td><code>${escape(p['name'])}</code><td>${escape(p['in'])}<td>${escape(p['description'] ?? '')}`,
  );
  const sent = requestBody ? `<p>Body: ${link(requestBody)}` : '';
  const answered = Object.entries(responses).map(
    ([status, response]) =>
      `<tr><td><code>${status}</code><td>${escape(response['description'])}<td>${link(response)}`,
  );
  return `<details><summary><span class="m">${method.toUpperCase()}</span> <code>${escape(path)}</code> — ${escape(summary)}</summary>
<table>${rows.join('')}</table>${sent}<table>${answered.join('')}</table></details>`;
}

export function renderDocs({ info, tags, paths, components }: OpenApiDocument): string {
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({ path, method, described })),
  );
  const sections = tags.map(({ name, description }) => {
    const own = all.filter(({ described }) => described.tags.includes(name));
    return `<h2>${escape(description)}</h2>${own.map((one) => operation(one.path, one.method, one.described)).join('')}`;
  });
  const schemas = Object.entries(components.schemas).map(
    ([name, schema]) => `<h3 id="${name}">${name}</h3><pre>${escape(JSON.stringify(schema, null, 2))}</pre>`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escape(info.title)} API</title><style>${STYLE}</style></head><body>
<h1>${escape(info.title)} ${escape(info.version)}</h1><p>${escape(info.description)}</p>
<p>For programs: <a href="/openapi.json">/openapi.json</a>. Tokens go into <code>Authorization: Bearer …</code>.</p>
${sections.join('')}<h2>Shapes</h2>${schemas.join('')}</body></html>`;
}
