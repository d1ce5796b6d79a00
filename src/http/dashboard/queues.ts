/**
 * `/dashboard/queues`: bull-board under the same login, to see the jobs themselves. A read-only visitor gets a board that
 * cannot change anything, in its pages and in its routes. A job deleted there is only a reminder: the next sweep writes it
 * again.
 */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { HonoAdapter } from '@bull-board/hono';
import { serveStatic } from '@hono/node-server/serve-static';
import { Hono, type Context } from 'hono';
import type { Hub } from '../../pipeline/context.js';
import { addressOfFile } from './client-files.js';
import { HOME, requireActor, type DashboardEnv } from './identity.js';
import { READING } from '../access.js';
import { withBasePath } from '../base-path.js';
import { HttpError } from '../problems.js';

const BASE = `${HOME}/queues`;

/** Its scripts set inline styles. Its pages load nothing from other hosts, and run no scripts but their own files. */
export const BOARD_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/** Adds names to its buttons that are pictures, and corrects colours that are too pale. */
const OURS = `<link rel="stylesheet" href="${addressOfFile('board.css')}"><script type="module" src="${addressOfFile('board.js')}"></script>`;

function openBoard({ queues, config }: Hub, mayAct: boolean): Hono {
  const { BASE_PATH: base } = config;
  const serverAdapter = new HonoAdapter(serveStatic);
  serverAdapter.setBasePath(base + BASE);
  createBullBoard({
    queues: queues.all().map((queue) => new BullMQAdapter(queue, { readOnlyMode: !mayAct })),
    serverAdapter,
    options: {
      uiBasePath: dirname(createRequire(import.meta.url).resolve('@bull-board/ui/package.json')),
      uiConfig: {
        boardTitle: 'reelhaul queues',
        boardLogo: { path: base + addressOfFile('reel.svg'), width: 28, height: 28 },
        hideDocsLink: true,
        miscLinks: [{ text: 'Back to the dashboard', url: base + HOME }],
      },
    },
  });
  return serverAdapter.registerPlugin();
}

export function createQueueRoutes(hub: Hub): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  const boards = new Map<boolean, Hono>();
  const boardOf = (mayAct: boolean): Hono => {
    const board = boards.get(mayAct) ?? new Hono().route(hub.config.BASE_PATH + BASE, openBoard(hub, mayAct));
    boards.set(mayAct, board);
    return board;
  };
  const serve = async (c: Context<DashboardEnv>): Promise<Response> => {
    const response = await boardOf(c.var.visitor.mayAct).fetch(withBasePath(c, hub.config.BASE_PATH));
    if (response.status === 404 && (c.req.header('accept') ?? '').includes('text/html'))
      throw new HttpError(404, 'not_found', 'There is no such page.');
    const headers = new Headers(response.headers);
    headers.set('content-security-policy', BOARD_POLICY);
    if (!headers.get('content-type')?.startsWith('text/html'))
      return new Response(response.body, { status: response.status, headers });
    // Its page loads two fonts from another host, and does without them.
    const page = (await response.text())
      .replaceAll(/<link[^>]+href="https?:[^>]+>/g, '')
      .replace('</head>', `${OURS}</head>`);
    headers.delete('content-length');
    return new Response(page, { status: response.status, headers });
  };
  routes.get(`${BASE}/`, (c) => c.redirect(BASE));
  routes.all(`${BASE}/*`, (c) => {
    if (!READING.has(c.req.method)) requireActor(c.var.visitor);
    return serve(c);
  });
  routes.get(BASE, serve);
  return routes;
}
