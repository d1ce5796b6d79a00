/** `/docs`: the OpenAPI document as a page for people. One file of HTML, no script, nothing from other hosts. */
import { html, raw } from 'hono/html';
import type { OpenApiDocument } from './openapi.js';
import type { Operation } from './operations.js';

/** For the page: only its own style, and nothing else at all. */
export const PAGE_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

type Html = ReturnType<typeof html>;

const STYLE = `
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.8rem;border:1px solid #8884;border-radius:6px}
h2{margin-top:2.5rem;border-bottom:1px solid #8884}summary{cursor:pointer;padding:.3rem 0}
table{border-collapse:collapse}td{padding:.2rem .8rem .2rem 0;vertical-align:top}
.m{display:inline-block;min-width:3.2rem;font-weight:600}details>*:not(summary){margin-left:1.2rem}`;

const linksIn = (schema: unknown): Html => {
  const names = [...JSON.stringify(schema).matchAll(/#\/components\/schemas\/(\w+)/g)].map(
    ([, name]) => name!,
  );
  return html`${names.map((name, i) => html`${i === 0 ? '' : ' or '}<a href="#${name}">${name}</a>`)}`;
};

const row = (...cells: readonly unknown[]): Html =>
  html`<tr>
    ${cells.map((cell, i) => html`<td>${i === 0 ? html`<code>${cell}</code>` : cell}</td>`)}
  </tr>`;

function operation(
  path: string,
  method: string,
  { summary, parameters, requestBody, responses }: Operation,
): Html {
  const answers = Object.entries(responses);
  return html`<details>
    <summary><span class="m">${method.toUpperCase()}</span> <code>${path}</code> — ${summary}</summary>
    <table>
      ${parameters.map((one) => row(one['name'], one['in'], one['description']))}
    </table>
    ${requestBody ? html`<p>Body: ${linksIn(requestBody)}</p>` : ''}
    <table>
      ${answers.map(([status, response]) => row(status, response['description'], linksIn(response)))}
    </table>
  </details>`;
}

export function renderDocs({ info, tags, paths, components }: OpenApiDocument): Html {
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({ path, method, described })),
  );
  const sections = tags.map(({ name, description }) => {
    const own = all.filter(({ described }) => described.tags.includes(name));
    return html`<h2>${description}</h2>
      ${own.map((one) => operation(one.path, one.method, one.described))}`;
  });
  const schemas = Object.entries(components.schemas).map(
    ([name, schema]) =>
      html`<h3 id="${name}">${name}</h3>
        <pre>${JSON.stringify(schema, null, 2)}</pre>`,
  );
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${info.title} API</title>
        <style>
          ${raw(STYLE)}
        </style>
      </head>
      <body>
        <h1>${info.title} ${info.version}</h1>
        <p>${info.description}</p>
        <p>
          For programs: <a href="/openapi.json">/openapi.json</a>. Tokens go into
          <code>Authorization: Bearer …</code>.
        </p>
        ${sections}
        <h2>Shapes</h2>
        ${schemas}
      </body>
    </html>`;
}
