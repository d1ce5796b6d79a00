/**
 * The dashboard as people meet it: in a real Chromium, on a real server with real workers. Without a Chromium these tests
 * are skipped.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Browser, Page } from 'playwright-core';
import { startApi } from '../../support/api.js';
import { browserPath, launchBrowser, violations } from '../../support/browser.js';
import { ACCOUNTS, openStage, OPERATOR, VIEWER, visit, type Stage } from '../../support/dashboard.js';
import { needs } from '../../support/needs.js';
import { until } from '../../support/until.js';

const WIDE = { width: 1440, height: 900 };
const PHONE = { width: 360, height: 740 };
/** What a wide screen is at 400 % too: the least that people use. */
const NARROW = { width: 320, height: 640 };

/** Something on the page, as far as it is looked at here. */
interface Piece {
  getBoundingClientRect(): { readonly top: number; readonly bottom: number };
}

type Account = { readonly user: string; readonly password: string };

needs('chromium', browserPath !== null).describe('in a real browser', () => {
  let stage: Stage;
  let browser: Browser;
  /** One for all tests: each window costs a second of work. */
  let window: Page;

  beforeAll(async () => {
    stage = await openStage({
      environment: {
        ARCHIVE_ATTEMPTS: '2',
        UNCONFIRMED_WAIT_MS: '3600000',
        NOTIFY_ATTEMPTS: '1',
        PRICES: '{"*":0.5}',
      },
    });
    await stage.bed.work();
    browser = await launchBrowser();
    window = await browser.newPage({ baseURL: stage.api.url });
  });
  afterAll(async () => {
    await browser?.close();
    await stage?.close();
  });

  afterEach(async () => {
    await window.unrouteAll({ behavior: 'wait' });
    await leave();
  });

  /** A page may be about to go somewhere else by itself, and does nothing any more once it has been left. */
  const leave = () =>
    until(
      () =>
        window.goto('about:blank').then(
          () => true,
          () => false,
        ),
      'the page to be left',
    );
  async function newPage(viewport: typeof WIDE, colorScheme: 'light' | 'dark') {
    await window.context().clearCookies();
    await window.setViewportSize(viewport);
    await window.emulateMedia({ colorScheme });
    return window;
  }
  /** A page for somebody who has logged in. */
  async function open(
    path: string,
    {
      account = OPERATOR,
      viewport = WIDE,
      colorScheme = 'light',
      of = stage,
    }: { account?: Account; viewport?: typeof WIDE; colorScheme?: 'light' | 'dark'; of?: Stage } = {},
  ): Promise<Page> {
    const page = await newPage(viewport, colorScheme);
    const [name = '', value = ''] = (await visit(of.api, account)).cookie.split('=');
    await page.context().addCookies([{ name, value, url: of.api.url, httpOnly: true, sameSite: 'Strict' }]);
    await page.goto(of.api.url + path);
    return page;
  }
  async function logIn(page: Page, { user, password }: { user: string; password: string }) {
    await page.getByLabel('Name').fill(user);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
  }
  const live = (page: Page) => page.locator('#connection[data-state=live]').waitFor();
  const pageOf = (id: string) => `/dashboard/generations/${id}`;
  const wider = (page: Page) =>
    page.evaluate<number>('document.documentElement.scrollWidth - document.documentElement.clientWidth');

  const submitsOf = (prompt: string) =>
    stage.bed.simulator.ledger().submits.filter((submit) => submit.prompt?.startsWith(prompt));

  async function unconfirmed(prompt: string): Promise<string> {
    const { id } = await stage.bed.enqueue(`${prompt} [sim: submit=502-after, callback=lost]`);
    await stage.bed.reaches(id, 'unconfirmed');
    return id;
  }
  async function failed(prompt: string): Promise<string> {
    const { id } = await stage.bed.enqueue(`${prompt} [sim: video=garbage*2]`);
    await stage.bed.reaches(id, 'failed');
    return id;
  }

  test('somebody logs in, and out again', async () => {
    const page = await newPage(WIDE, 'light');
    await page.goto('/dashboard/inbox');
    await logIn(page, OPERATOR);
    await page.waitForURL('**/dashboard/inbox');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in to reelhaul' }).waitFor();
    await page.goto('/dashboard');
    expect(new URL(page.url()).pathname).toBe('/dashboard/login');
  });

  test('a wrong password is told, and lets nobody in', async () => {
    const page = await newPage(WIDE, 'light');
    await page.goto('/dashboard');
    await logIn(page, { user: OPERATOR.user, password: 'wrong' });
    expect(await page.getByRole('alert').innerText()).toBe('Name or password is not right.');
  });

  test('a running generation is followed to its playing video, without anything being pressed', async () => {
    const { id } = await stage.bed.enqueue('a lighthouse in a storm [sim: duration=6s]', { delayMs: 1000 });
    const page = await open(pageOf(id));
    await live(page);
    await page.locator('#now progress:not([value="0"])').waitFor();
    await page.locator('#now .state[data-state=succeeded]').waitFor();
    const video = page.locator('video');
    await video.waitFor();
    const playing = await video.evaluate(async (element) => {
      const film = element as unknown as {
        muted: boolean;
        play(): Promise<void>;
        addEventListener(type: 'timeupdate', listener: () => void): void;
        currentTime: number;
        videoWidth: number;
        duration: number;
      };
      film.muted = true;
      const moved = new Promise<void>((resolve) => {
        film.addEventListener('timeupdate', () => {
          if (film.currentTime > 0) resolve();
        });
      });
      await film.play();
      await moved;
      return { width: film.videoWidth, duration: film.duration };
    });
    expect(playing.width).toBeGreaterThan(0);
    expect(playing.duration).toBeGreaterThan(0);
    const steps = await page.locator('#timeline .stay .state').allInnerTexts();
    expect(steps).toEqual(['Queued', 'Submitting', 'Generating', 'Archiving', 'Succeeded']);
    // Looking at it again leaves the film alone.
    await video.evaluate((element) => element.setAttribute('data-mine', 'yes'));
    const next = page.waitForResponse((response) => response.url().endsWith(pageOf(id)));
    await next;
    expect(await video.getAttribute('data-mine')).toBe('yes');
  });

  test('a part of the video can be asked for, and only behind the login', async () => {
    const { id } = await stage.bed.enqueue('a part of it');
    await stage.bed.reaches(id, 'succeeded');
    const page = await open(pageOf(id));
    const asset = `${pageOf(id)}/assets/video`;
    const part = await page.request.get(asset, { headers: { range: 'bytes=4-7' } });
    expect([part.status(), (await part.body()).toString('latin1')]).toEqual([206, 'ftyp']);
    expect((await fetch(stage.api.url + asset)).status).toBe(401);
  });

  test('what failed behind the paid request is retried with one press, and says that it cannot bill', async () => {
    const id = await failed('a kite above the dunes');
    const page = await open(pageOf(id));
    const action = page.locator('#action-retry');
    expect(await action.locator('.bill').innerText()).toBe('Cannot bill');
    await action.locator('summary').click();
    await action.getByRole('button', { name: 'Retry' }).click();
    expect(await page.locator('.notice').innerText()).toBe('Retried.');
    await page.locator('#now .state[data-state=succeeded]').waitFor();
    expect(submitsOf('a kite above')).toHaveLength(1);
  });

  test('a second bill is asked for before it can be made', async () => {
    const id = await unconfirmed('asked before it bills');
    const page = await open(pageOf(id));
    const action = page.locator('#action-resubmit');
    expect(await action.locator('.bill').innerText()).toBe('Can bill a second time');
    await action.locator('summary').press('Enter');
    await action.getByRole('button', { name: 'Submit again' }).click();
    // The browser does not send it: the box is not ticked.
    expect(await action.locator('input:invalid').count()).toBe(1);
    expect((await stage.bed.reelhaul.get(id)).state).toBe('unconfirmed');
    await action.getByLabel('I accept').press('Space');
    await action.getByRole('button', { name: 'Submit again' }).press('Enter');
    await page.locator('#now .state[data-state=succeeded]').waitFor();
    expect((await stage.bed.reelhaul.get(id)).attempts.submit).toBe(2);
  });

  test('a task that somebody found is adopted, and followed to its end', async () => {
    const id = await unconfirmed('found at the provider');
    const [submit] = submitsOf('found at the provider');
    const taskId = submit!.taskIds[0]!;
    const page = await open(pageOf(id));
    await page.locator('#action-adopt summary').click();
    await page.getByLabel('Task id').fill(taskId);
    await page.getByRole('button', { name: 'Adopt a task' }).click();
    await page.locator('#now .state[data-state=succeeded]').waitFor();
    expect((await stage.bed.reelhaul.get(id)).taskId).toBe(taskId);
  });

  test('a page that is old decides nothing about what has moved on since', async () => {
    const id = await unconfirmed('moved on meanwhile');
    const page = await open(pageOf(id));
    await page.route('**/events', (route) => route.abort());
    await page.route(`**${pageOf(id)}`, (route) =>
      route.request().isNavigationRequest() ? route.continue() : route.abort(),
    );
    await page.reload();
    await page.locator('#action-giveUp summary').click();
    await stage.bed.reelhaul.cancel(id);
    await page.getByRole('button', { name: 'Give up' }).click();
    expect(await page.getByRole('alert').innerText()).toMatch(
      /has changed since this page was shown: it is canceled now/,
    );
  });

  test('the list is filtered by state, tenant and model, and finds one by task and key', async () => {
    const { id } = await stage.bed.reelhaul.enqueue(
      { prompt: 'the one of the studio', model: 'gen4_turbo' },
      { tenant: 'studio', idempotencyKey: 'order 4711', delayMs: 3_600_000 },
    );
    const { id: other } = await stage.bed.enqueue('found by its task');
    const { taskId } = await stage.bed.reaches(other, 'succeeded');
    const page = await open('/dashboard/generations');
    await page
      .getByRole('navigation', { name: 'By state' })
      .getByRole('link', { name: /Queued/ })
      .click();
    await page.getByLabel('Tenant').fill('studio');
    await page.getByLabel('Model').fill('gen4_turbo');
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    expect(await page.locator('.generation .prompt').allInnerTexts()).toEqual(['the one of the studio']);
    await page.getByRole('searchbox').fill('order 4711');
    await page.getByRole('button', { name: 'Find' }).click();
    await page.waitForURL(`**${pageOf(id)}`);
    await page.goto('/dashboard/generations');
    await page.getByRole('searchbox').fill(taskId!);
    await page.getByRole('searchbox').press('Enter');
    await page.waitForURL(`**${pageOf(other)}`);
  });

  test('where there is little room the filter is unfolded first', async () => {
    await stage.bed.reelhaul.enqueue({ prompt: 'on the way' }, { tenant: 'phones', delayMs: 3_600_000 });
    const page = await open('/dashboard/generations', { viewport: PHONE });
    expect(await page.getByLabel('Tenant').isVisible()).toBe(false);
    await page.getByText('Filter by tenant').click();
    await page.getByLabel('Tenant').fill('phones');
    await page.getByRole('button', { name: 'Filter', exact: true }).click();
    expect(await page.locator('.generation .prompt').allInnerTexts()).toEqual(['on the way']);
  });

  test('of one that the provider failed its last words are open, and what helps is said', async () => {
    const { id } = await stage.bed.enqueue('against the rules [sim: result=failed:SAFETY.INPUT.TEXT]');
    await stage.bed.reaches(id, 'failed');
    const page = await open(pageOf(id));
    expect(await page.locator('#timeline pre:visible').innerText()).toContain('SAFETY.INPUT.TEXT');
    expect(await page.locator('.failure').innerText()).toMatch(/The same request may fail again/);
  });

  test('the list is live: what is enqueued stands at its top by itself', async () => {
    const page = await open('/dashboard/generations');
    await live(page);
    const { id } = await stage.bed.enqueue('came while somebody looked');
    await page.locator(`#g-${id}`).waitFor();
    expect(await page.locator('.generation').first().getAttribute('id')).toBe(`g-${id}`);
    await page.locator(`#g-${id} .state[data-state=succeeded]`).waitFor();
  });

  test('many are decided at once in the inbox, and those that are not marked are left alone', async () => {
    const ids = [await unconfirmed('bulk 1'), await unconfirmed('bulk 2'), await unconfirmed('bulk 3')];
    const page = await open('/dashboard/inbox');
    for (const id of ids.slice(0, 2)) await page.locator(`#g-${id} input[type=checkbox]`).check();
    await live(page);
    await stage.bed.enqueue('something happens meanwhile');
    await page.waitForResponse((response) => response.url().endsWith('/dashboard/inbox'));
    await page.getByRole('button', { name: 'Give up selected' }).click();
    expect(await page.locator('.notice').first().innerText()).toBe('2 given up.');
    const states = await Promise.all(ids.map(async (id) => (await stage.bed.reelhaul.get(id)).state));
    expect(states).toEqual(['failed', 'failed', 'unconfirmed']);
  });

  test('the keyboard stays where it is when the page changes around it', async () => {
    const below = await unconfirmed('stays');
    const between = await unconfirmed('focused, and goes');
    const above = await unconfirmed('goes first');
    const page = await open('/dashboard/generations?state=unconfirmed');
    await live(page);
    const focused = () => page.evaluate<string>("document.activeElement.closest('.generation')?.id ?? ''");
    await page.locator(`#g-${between} a`).focus();
    await stage.bed.reelhaul.cancel(above);
    await page.locator(`#g-${above}`).waitFor({ state: 'detached' });
    expect(await focused()).toBe(`g-${between}`);
    await stage.bed.reelhaul.cancel(between);
    await page.locator(`#g-${between}`).waitFor({ state: 'detached' });
    expect(await focused()).toBe(`g-${below}`);
  });

  test('notifications that were given up are sent again in bulk', async () => {
    const { id } = await stage.bed.enqueue('told to nobody', { notifyUrl: 'http://127.0.0.1:9/gone' });
    await until(
      async () => (await stage.bed.reelhaul.notifications(id)).some(({ dead }) => dead),
      'it to be given up',
    );
    const page = await open('/dashboard/inbox');
    await page.locator('#dead').getByRole('button', { name: 'Select all' }).click();
    await page.getByRole('button', { name: 'Send selected again' }).click();
    expect(await page.locator('.notice').first().innerText()).toMatch(/^\d+ queued to be sent again\.$/);
  });

  test('a prompt full of HTML and script is shown and does nothing', async () => {
    const prompt = `<script>document.title='owned'</script><img src=x onerror="document.title='owned'"><b>bold</b>"' onmouseover=alert(1) {{x}} </title></pre>`;
    const { id } = await stage.bed.reelhaul.enqueue(
      { prompt },
      {
        delayMs: 3_600_000,
        tenant: '<i>tenant</i>',
        metadata: { note: '</pre><script>alert(1)</script>' },
        idempotencyKey: '"><script>',
      },
    );
    const page = await open('/dashboard/generations');
    const alarms: string[] = [];
    page.on('dialog', (dialog) => {
      alarms.push(dialog.message());
      void dialog.dismiss();
    });
    page.on('console', (message) => {
      if (message.type() === 'error') alarms.push(message.text());
    });
    await page.locator(`#g-${id}`).waitFor();
    for (const path of [
      '/dashboard/generations',
      pageOf(id),
      '/dashboard',
      '/dashboard/inbox',
      `/dashboard/generations?q=${encodeURIComponent(prompt)}`,
    ]) {
      await page.goto(path);
      await live(page);
      expect(await page.locator('main script, main img[src=x], main b, main i').count()).toBe(0);
      expect(await page.title()).not.toBe('owned');
    }
    await page.goto(pageOf(id));
    expect(await page.locator('h1').innerText()).toContain(`<script>document.title='owned'</script>`);
    expect(alarms).toEqual([]);
  });

  test('a connection that was lost comes back by itself, and the page is right again', async () => {
    const page = await open('/dashboard/generations');
    await live(page);
    const { port } = new URL(stage.api.url);
    await stage.api.close();
    await page.locator('#connection[data-state=lost]').waitFor();
    const { id } = await stage.bed.enqueue('happened while nobody listened');
    await stage.bed.reaches(id, 'succeeded');
    const again = await startApi(stage.bed, { ...ACCOUNTS, PORT: port });
    stage = {
      ...stage,
      api: again,
      close: async () => {
        await again.close();
        await stage.bed.close();
      },
    };
    await live(page);
    await page.locator(`#g-${id} .state[data-state=succeeded]`).waitFor();
  });

  test('a page that cannot be renewed says that it is out of date, until it can', async () => {
    const page = await open('/dashboard/generations');
    await live(page);
    await page.route('**/dashboard/generations', (route) => route.fulfill({ status: 503, body: 'away' }));
    await page.locator('#connection').getByText('out of date').waitFor();
    await page.unroute('**/dashboard/generations');
    await live(page);
  });

  test('two workers are killed and others take over while a page is open, and it stays right', async () => {
    const second = await openStage({
      environment: { JOB_LOCK_MS: '1000', ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost' },
    });
    try {
      const first = [second.bed.spawnWorker(), second.bed.spawnWorker()];
      const ids = await Promise.all(
        [1, 2, 3, 4, 5, 6].map(
          async (n) => (await second.bed.enqueue(`survivor ${n} [sim: duration=3s]`)).id,
        ),
      );
      const page = await open('/dashboard/generations', { of: second });
      // A kill before the answer to a submit would leave that one unconfirmed.
      await until(async () => {
        const all = await Promise.all(ids.map((id) => second.bed.reelhaul.get(id)));
        return all.every(({ taskId }) => taskId !== null);
      }, 'all to be accepted');
      for (const { child } of first) child.kill('SIGKILL');
      await Promise.all(first.map(({ exited }) => exited));
      second.bed.spawnWorker();
      second.bed.spawnWorker();
      await until(
        async () => (await page.locator('.generation .state[data-state=succeeded]').count()) === 6,
        'all to succeed on the page',
      );
      const shown = await page
        .locator('.generation')
        .evaluateAll((rows) => rows.map(({ id }) => id.slice(2)));
      expect(new Set(shown)).toEqual(new Set(ids));
      expect(second.bed.simulator.ledger().totals.submits).toBe(6);
    } finally {
      await second.close();
    }
  });

  describe('on every page', () => {
    let pages: readonly (readonly [name: string, path: string])[];
    beforeAll(async () => {
      const { id } = await stage.bed.enqueue('a finished one');
      await stage.bed.reaches(id, 'succeeded');
      const open = await unconfirmed('an open one');
      const bad = await failed('a failed one');
      // As long as it may be, with nowhere to break it.
      const long = await stage.bed.reelhaul.enqueue(
        { prompt: 'w'.repeat(20_000) },
        { tenant: 't'.repeat(128), idempotencyKey: 'k'.repeat(200), notifyUrl: 'http://127.0.0.1:9/gone' },
      );
      await stage.bed.reaches(long.id, 'succeeded');
      await until(
        async () => (await stage.bed.reelhaul.notifications(long.id)).some(({ dead }) => dead),
        'its notification to be given up',
      );
      pages = [
        ['overview', '/dashboard'],
        ['overview-day', '/dashboard?span=day'],
        ['generations', '/dashboard/generations'],
        ['not-found-one', '/dashboard/generations?q=nothing'],
        ['inbox', '/dashboard/inbox'],
        ['not-found-page', '/dashboard/nowhere'],
        ['succeeded', pageOf(id)],
        ['unconfirmed', pageOf(open)],
        ['failed', pageOf(bad)],
        ['long', pageOf(long.id)],
      ];
    });

    test.each([
      ['wide and light', [WIDE], 'light'],
      ['on phones, the narrowest as well, and dark', [PHONE, NARROW], 'dark'],
    ] as const)(
      'axe finds nothing, and nothing is wider than the screen: %s',
      async (_, viewports, colorScheme) => {
        const page = await open('/dashboard', { colorScheme });
        const lookAt = async (path: string) => {
          await page.setViewportSize(viewports[0]);
          await page.goto(path);
          await page
            .locator('details.action')
            .evaluateAll((actions) => actions.forEach((action) => action.setAttribute('open', '')));
          expect([path, await violations(page)]).toEqual([path, []]);
          for (const viewport of viewports) {
            await page.setViewportSize(viewport);
            expect([path, viewport.width, await wider(page)]).toEqual([path, viewport.width, 0]);
          }
        };
        for (const [, path] of pages) await lookAt(path);
        await leave();
        await page.context().clearCookies();
        await lookAt('/dashboard/login');
      },
    );

    test.each(['light', 'dark'] as const)(
      'on a phone the head takes two lines at most, whoever looks and however the connection is: %s',
      async (colorScheme) => {
        for (const account of [OPERATOR, VIEWER]) {
          const page = await open('/dashboard', { account, viewport: PHONE, colorScheme });
          await live(page);
          for (const words of ['live', 'reconnecting…']) {
            await page
              .locator('#connection .said')
              .evaluate((said, text) => (said.textContent = text), words);
            const middles = await page
              .locator('header :is(img, li, .dot, .said, .name, .role, button)')
              .evaluateAll((pieces) =>
                pieces.map((piece) => {
                  const { top, bottom } = (piece as unknown as Piece).getBoundingClientRect();
                  return (top + bottom) / 2;
                }),
              );
            // What stands in one line has its middle within a few pixels.
            const lines = middles.sort((a, b) => a - b).filter((y, i) => i === 0 || y - middles[i - 1]! > 8);
            expect([account.user, words, lines.length, await wider(page)]).toEqual([
              account.user,
              words,
              2,
              0,
            ]);
          }
        }
      },
    );

    test.each([
      ['wide and light', WIDE, 'light'],
      ['on a phone and dark', PHONE, 'dark'],
    ] as const)('axe finds nothing in the queues: %s', async (_, viewport, colorScheme) => {
      const page = await open('/dashboard/queues', { viewport, colorScheme });
      for (const path of ['', '/queue/sweep?status=delayed', '/job-schedulers']) {
        await page.goto(`/dashboard/queues${path}`);
        await page.locator('header [role=heading]').waitFor();
        await page.locator('main a').first().waitFor();
        // Its pages draw themselves anew while they load: what counts is what they come to.
        await until(
          async () => (await violations(page)).length === 0,
          async () => `${path} to have no violations: ${(await violations(page)).join('\n')}`,
        );
      }
    });

    test('the keyboard alone leads past the menu to the content, and what has focus is seen', async () => {
      const page = await open('/dashboard/generations');
      await page.keyboard.press('Tab');
      const skip = page.getByRole('link', { name: 'Skip to the content' });
      expect(await page.evaluate('document.activeElement.textContent')).toBe(await skip.innerText());
      await page.keyboard.press('Enter');
      await page.keyboard.press('Tab');
      const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
      expect(await page.evaluate("document.activeElement.closest('main') !== null")).toBe(true);
      expect(outline).toBe('solid');
    });

    test('who may only look finds no button that changes anything', async () => {
      const { get } = await visit(stage.api, VIEWER);
      for (const [, path] of pages) {
        const { text } = await get(path);
        const forms = [...text.matchAll(/<form method="post"[^]*?<\/form>/g)].join('\n');
        const buttons = [...forms.matchAll(/<button[^>]*>([^]*?)<\/button>/g)].map(([, words]) => words);
        expect([path, buttons]).toEqual([path, ['Log out']]);
      }
    });
  });
});
