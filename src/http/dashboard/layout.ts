/** What every page has around it: the head, the menu, the visitor, and whether it is live. */
import { html } from 'hono/html';
import type { FleetFigures } from '../../telemetry/snapshot.js';
import { addressOfFile, BUILD } from './client-files.js';
import { HOME, type Visitor } from './identity.js';
import { inboxCount } from './inbox-count.js';

/** HTML in which every value was escaped. */
export type Html = ReturnType<typeof html>;

export interface Page {
  readonly title: string;
  /** Which entry of the menu this belongs to. */
  readonly at: 'overview' | 'generations' | 'inbox' | null;
  readonly visitor: Visitor;
  /** Null when Redis did not answer, or without a login. */
  readonly figures: FleetFigures | null;
  /** The page asks for itself again and again. */
  readonly isRenewed: boolean;
  readonly body: Html;
}

function head(title: string): Html {
  return html`<head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="light dark" />
    <meta name="robots" content="noindex" />
    <title>${title} · reelhaul</title>
    <link rel="icon" href="${addressOfFile('reel.svg')}" type="image/svg+xml" />
    <link rel="stylesheet" href="${addressOfFile('style.css')}" />
  </head>`;
}

/** A page for a visitor without a login. */
export function bare(title: string, body: Html): Html {
  return html`<!doctype html>
    <html lang="en">
      ${head(title)}
      <body>
        ${body}
      </body>
    </html>`;
}

function menu({ at, figures }: Page): Html {
  const inbox = inboxCount(figures);
  const entry = (where: Page['at'], path: string, label: string, more: Html | '' = '') =>
    html`<li>
      <a href="${HOME}${path}" ${where === at && where !== null ? html`aria-current="page"` : ''}
        >${label}${more}</a
      >
    </li>`;
  const badge =
    inbox === null || inbox === 0
      ? ''
      : html` <span class="badge">${inbox}<span class="unseen"> to decide</span></span>`;
  return html`<nav aria-label="Pages">
    <ul id="menu" data-live>
      ${entry('overview', '', 'Overview')} ${entry('generations', '/generations', 'Generations')}
      ${entry('inbox', '/inbox', 'Inbox', badge)} ${entry(null, '/queues', 'Queues')}
    </ul>
  </nav>`;
}

function whoami({ name, mayAct, csrf, session }: Visitor): Html {
  const role = mayAct ? '' : html` <span class="role">read only</span>`;
  if (name === null) return html`<p class="who"><span class="name">No login: this machine only</span></p>`;
  return html`<div class="who">
    <span class="name" dir="auto" title="${name}">${name}</span>${role}
    ${
      session
        ? html`<form method="post" action="${HOME}/logout">
            <input type="hidden" name="csrf" value="${csrf}" /><button class="quiet">Log out</button>
          </form>`
        : ''
    }
  </div>`;
}

export function layout(page: Page): Html {
  const { title, visitor, isRenewed, body } = page;
  return html`<!doctype html>
    <html lang="en" data-build="${BUILD}" ${isRenewed ? html`data-renewed` : ''}>
      ${head(title)}
      <body>
        <a class="skip" href="#content">Skip to the content</a>
        <header>
          <a class="wordmark" href="${HOME}">
            <img src="${addressOfFile('reel.svg')}" alt="" width="24" height="24" /><span>reelhaul</span>
          </a>
          ${menu(page)}
          <div class="aside">
            ${
              isRenewed
                ? html`<p id="connection" role="status" class="connection" data-state="still">
                    <span class="dot" aria-hidden="true"></span><span class="said">not live</span>
                  </p>`
                : ''
            }
            ${whoami(visitor)}
          </div>
        </header>
        <main id="content" tabindex="-1">${body}</main>
        <script type="module" src="${addressOfFile('main.js')}"></script>
      </body>
    </html>`;
}
