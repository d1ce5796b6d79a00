/**
 * `/dashboard/events`: tells open pages that something changed, so that they ask for themselves anew. One reader of the
 * event stream per process, however many pages are open. A page looks once more whenever it has connected, so whatever
 * happened while it was not is not missed. What a page is told is bounded: while it is slow to read, what happens is
 * gathered, and too much of it becomes “many”.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { Hono } from 'hono';
import { streamSSE } from 'hono/streaming';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import { HttpError } from '../problems.js';
import { HOME, type DashboardEnv } from './identity.js';

const MAX_PAGES = 1000;
/** Of one account, so that none takes them all. */
const MAX_PAGES_PER_ACCOUNT = 200;
/** Of so many generations a page is told one by one. */
const MAX_NAMED = 50;
/** A page is told at most this often. */
const GATHER_MS = 300;
/** Proxies close connections on which nothing is said; most after 60 s. */
const HEARTBEAT_MS = 15_000;
const RECONNECT_MS = 1500;
/** After an error of Redis. */
const READ_AGAIN_MS = 1000;

/** What one open page was not told yet. */
interface Page {
  readonly changed: Set<string>;
  readonly account: string | null;
  many: boolean;
  wake: () => void;
}

export interface Feed {
  readonly routes: Hono<DashboardEnv>;
  /** Ends all open pages' streams: a server that stops waits for none. */
  close(): void;
}

export function createFeed({ events, log }: Hub, reelhaul: Reelhaul): Feed {
  const routes = new Hono<DashboardEnv>();
  const pages = new Set<Page>();
  const ending = new AbortController();
  /** Resolves once whatever happens from now on will be told. */
  let reading: Promise<void> | null = null;

  function tell(page: Page, generationId: string | null): void {
    if (generationId === null || page.changed.size >= MAX_NAMED) page.many = true;
    else page.changed.add(generationId);
    page.wake();
  }

  async function startReading(): Promise<void> {
    void readFrom(await events.newest());
  }

  async function readFrom(start: string): Promise<void> {
    let cursor = start;
    const { signal } = ending;
    while (!signal.aborted) {
      try {
        for await (const event of reelhaul.events({ cursor, signal })) {
          ({ cursor } = event);
          for (const page of pages) tell(page, event.generationId);
        }
      } catch (error) {
        log.warn({ err: error }, 'the dashboard could not read events; it tries again');
        await wait(READ_AGAIN_MS, undefined, { signal }).catch(() => {});
        for (const page of pages) tell(page, null);
      }
    }
  }

  routes.get(`${HOME}/events`, async (c) => {
    if (pages.size >= MAX_PAGES) {
      throw new HttpError(503, 'too_many_pages', `At most ${MAX_PAGES} live pages at once.`, {
        'retry-after': '10',
      });
    }
    const { name: account } = c.var.visitor;
    if ([...pages].filter((one) => one.account === account).length >= MAX_PAGES_PER_ACCOUNT) {
      const detail = `At most ${MAX_PAGES_PER_ACCOUNT} live pages of one account at once.`;
      throw new HttpError(429, 'too_many_pages', detail, { 'retry-after': '10' });
    }
    const page: Page = { changed: new Set(), account, many: false, wake: () => {} };
    pages.add(page);
    try {
      reading ??= startReading();
      await reading;
    } catch (error) {
      reading = null;
      pages.delete(page);
      throw error;
    }
    c.header('cache-control', 'no-store');
    c.header('x-accel-buffering', 'no');
    return streamSSE(c, async (sse) => {
      const gone = new AbortController();
      const over = AbortSignal.any([gone.signal, ending.signal]);
      sse.onAbort(() => gone.abort());
      over.addEventListener('abort', () => page.wake(), { once: true });
      try {
        await sse.writeSSE({ event: 'hello', data: '{}', retry: RECONNECT_MS });
        while (!over.aborted) {
          await somethingToTell(page);
          if (page.many || page.changed.size > 0) {
            const data = JSON.stringify(page.many ? { many: true } : { ids: [...page.changed] });
            page.changed.clear();
            page.many = false;
            await sse.writeSSE({ event: 'changed', data });
            await wait(GATHER_MS, undefined, { signal: over }).catch(() => {});
          } else if (!over.aborted) await sse.write(': still here\n\n');
        }
      } finally {
        pages.delete(page);
      }
    });
  });

  return {
    routes,
    close: () => ending.abort(),
  };
}

/** Resolves as soon as there is something, and after the time of a heartbeat. */
async function somethingToTell(page: Page): Promise<void> {
  if (page.many || page.changed.size > 0) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, HEARTBEAT_MS);
    page.wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
  page.wake = () => {};
}
