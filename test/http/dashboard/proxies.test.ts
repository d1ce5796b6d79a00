/** The server behind proxies: whose address counts, which pages are its own, and that it works below a path. */
import { createServer, request as httpRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { networkOf } from '../../../src/http/client-address.js';
import { startApi, type TestApi } from '../../support/api.js';
import { browserPath, launchBrowser } from '../../support/browser.js';
import { ACCOUNTS, formOf, openStage, OPERATOR, PAGE, visit, type Stage } from '../../support/dashboard.js';

let stage: Stage;
beforeAll(async () => {
  stage = await openStage();
});
afterAll(() => stage.close());

/** A server of its own keys, so that its tries to log in are counted apart. */
async function other(environment: Record<string, string>): Promise<TestApi> {
  const REDIS_PREFIX = `${stage.bed.prefix}:${Object.keys(environment).join('-')}:${Math.random()}`;
  return startApi(stage.bed, { ...ACCOUNTS, REDIS_PREFIX, ...environment });
}

/** Until it lies within one minute of the clock; then what it found is checked. */
async function withinOneMinute(act: () => Promise<() => void>): Promise<void> {
  const minute = () => Math.floor(Date.now() / 60_000);
  for (;;) {
    const startedIn = minute();
    const check = await act();
    if (minute() === startedIn) return check();
  }
}

describe('tries to log in', () => {
  const guess = async (api: TestApi, password: string, from: string, user: string = OPERATOR.user) => {
    const form = formOf({ user, password });
    const headers = { ...form.headers, 'x-forwarded-for': from };
    return (await api.ask('POST', '/dashboard/login', { ...form, headers })).status;
  };

  test('of others, however many, do not keep out the right password from elsewhere', async () => {
    // Counts are of one minute of the clock: what falls on two is tried again.
    await withinOneMinute(async () => {
      const api = await other({ TRUSTED_PROXIES: '127.0.0.0/8' });
      try {
        const statuses: number[] = [];
        for (let i = 0; i < 102; i++)
          statuses.push(await guess(api, 'a wrong password', `203.0.113.${i % 20}`));
        const fresh = '198.51.100';
        statuses.push(
          await guess(api, OPERATOR.password, `${fresh}.7`),
          // While an account is being guessed at, each address has one try.
          await guess(api, 'a wrong password', `${fresh}.8`),
          await guess(api, OPERATOR.password, `${fresh}.8`),
          await guess(api, OPERATOR.password, `${fresh}.9`),
        );
        return () =>
          expect(statuses).toEqual([...Array.from({ length: 100 }, () => 401), 429, 429, 303, 401, 429, 303]);
      } finally {
        await api.close();
      }
    });
  });

  test('count for the connection where no proxy is trusted, whatever a header says', async () => {
    const api = await other({});
    try {
      const statuses: number[] = [];
      for (let i = 0; i < 22; i++) statuses.push(await guess(api, 'wrong', `203.0.113.${i}`));
      expect(statuses).toContain(429);
    } finally {
      await api.close();
    }
  });

  test('count for the last address that no trusted proxy has, not for what a client wrote before it', async () => {
    const api = await other({ TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' });
    try {
      const statuses: number[] = [];
      for (let i = 0; i < 22; i++)
        statuses.push(await guess(api, 'wrong', `203.0.113.${i}, 198.51.100.1, 10.0.0.${i}`));
      expect(statuses).toContain(429);
      expect(await guess(api, OPERATOR.password, 'nonsense, 198.51.100.2')).toBe(303);
    } finally {
      await api.close();
    }
  });

  test.each([
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:0db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['203.0.113.9', '203.0.113.9'],
  ])('from %s count for %s', (address, network) => expect(networkOf(address)).toBe(network));
});

describe('a form', () => {
  const send = async (headers: Record<string, string>, environment: Record<string, string> = {}) => {
    const api = await other(environment);
    try {
      const form = formOf(OPERATOR);
      // fetch would set Host itself.
      const { port } = new URL(api.url);
      const request = httpRequest({
        port,
        method: 'POST',
        path: '/dashboard/login',
        headers: { ...form.headers, ...headers },
      });
      request.end(form.body);
      const [answer] = (await once(request, 'response')) as [{ statusCode: number; resume(): void }];
      answer.resume();
      return answer.statusCode;
    } finally {
      await api.close();
    }
  };

  test.each([
    [
      'of the same origin, behind a proxy that leaves out the port',
      303,
      { host: 'reels.example', origin: 'https://reels.example:8443', 'sec-fetch-site': 'same-origin' },
    ],
    [
      'of the origin null that the browser calls the same',
      303,
      { origin: 'null', 'sec-fetch-site': 'same-origin' },
    ],
    [
      'of the port that the proxy passes on',
      303,
      { host: 'reels.example:8080', origin: 'http://reels.example:8080' },
    ],
    ['of another origin', 403, { host: 'reels.example', origin: 'https://evil.example' }],
    [
      'of another origin on the same site',
      403,
      { host: 'reels.example', origin: 'https://reels.example', 'sec-fetch-site': 'same-site' },
    ],
    ['of the origin null', 403, { origin: 'null' }],
  ] as [string, number, Record<string, string>][])('%s is answered with %i', async (_, status, headers) => {
    expect(await send(headers)).toBe(status);
  });

  test('of PUBLIC_URL is its own, whatever Host the proxy sends', async () => {
    const environment = {
      PUBLIC_URL: 'https://reels.example:8443',
      CALLBACK_SECRET: 'a secret for the tests',
    };
    const origin = 'https://reels.example:8443';
    expect(await send({ host: 'upstream', origin }, environment)).toBe(303);
    expect(await send({ host: 'upstream', origin: 'https://evil.example' }, environment)).toBe(403);
  });
});

describe('without credentials', () => {
  test('a server with PUBLIC_URL answers callbacks only: a proxy that adds nothing looks like this machine', async () => {
    const api = await startApi(stage.bed, {
      PUBLIC_URL: 'https://reels.example.com',
      CALLBACK_SECRET: 'a secret for the tests',
    });
    try {
      const status = async (method: string, path: string) => (await api.ask(method, path)).status;
      expect(await status('GET', '/v1/generations')).toBe(403);
      expect(await status('POST', '/v1/generations')).toBe(403);
      expect(await status('GET', '/metrics')).toBe(403);
      expect(await status('GET', '/dashboard')).toBe(403);
      expect(await status('PUT', '/dashboard/queues/api/queues/submit/pause')).toBe(403);
      expect(await status('POST', '/callbacks/runway/x/y')).toBe(404);
      expect(await status('GET', '/healthz')).toBe(200);
    } finally {
      await api.close();
    }
  });

  test('a PUBLIC_URL on this machine, as for the simulator, changes nothing', async () => {
    const api = await startApi(stage.bed, {
      PUBLIC_URL: 'http://127.0.0.1:3000',
      CALLBACK_SECRET: 'a secret for the tests',
    });
    try {
      expect((await api.ask('GET', '/v1/generations')).status).toBe(200);
    } finally {
      await api.close();
    }
  });
});

/** A proxy that serves what is below /reels, and takes that off or leaves it. */
async function startProxy(target: string, takesOff: boolean): Promise<{ url: string; server: Server }> {
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? '/';
    if (!path.startsWith('/reels')) {
      outgoing.writeHead(418).end();
      return;
    }
    const headers = { ...incoming.headers, 'x-forwarded-for': '203.0.113.1' };
    const inner = httpRequest(
      target + (takesOff ? path.slice('/reels'.length) || '/' : path),
      // A connection of its own each: one that was kept may be closed by the server at the moment it is used again.
      { method: incoming.method ?? 'GET', headers, agent: false },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
      },
    );
    inner.on('error', () => outgoing.destroy());
    outgoing.on('close', () => inner.destroy());
    incoming.pipe(inner);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

describe.each([true, false])('below a path that the proxy takes off: %s', (takesOff) => {
  let api: TestApi;
  let proxy: { url: string; server: Server };
  let through: TestApi;
  beforeAll(async () => {
    api = await startApi(stage.bed, { ...ACCOUNTS, BASE_PATH: '/reels' });
    proxy = await startProxy(api.url, takesOff);
    const ask: TestApi['ask'] = async (method, path, options) => {
      const response = await fetch(`${proxy.url}/reels${path}`, {
        method,
        redirect: 'manual',
        headers: { ...options?.headers },
        ...(typeof options?.body === 'string' ? { body: options.body } : {}),
      });
      return { status: response.status, headers: response.headers, body: null, text: await response.text() };
    };
    through = { ...api, ask };
  });
  afterAll(async () => {
    proxy.server.closeAllConnections();
    proxy.server.close();
    await api.close();
  });

  test('every address on every page leads below it', async () => {
    const login = await through.ask(
      'POST',
      '/dashboard/login',
      formOf({ ...OPERATOR, next: '/dashboard/inbox' }),
    );
    expect(login.headers.get('location')).toBe('/reels/dashboard/inbox');
    expect(login.headers.get('set-cookie')).toContain('Path=/reels/dashboard');
    const sent = await through.ask('GET', '/dashboard/inbox?x=1', { headers: PAGE });
    expect(sent.headers.get('location')).toBe('/reels/dashboard/login?next=%2Fdashboard%2Finbox%3Fx%3D1');
    const { id } = await stage.bed.enqueue('href="/dashboard/x" in a prompt', { delayMs: 3_600_000 });
    const { cookie } = await visit(through, OPERATOR);
    const seen = new Set<string>();
    for (const page of ['', '/generations', `/generations/${id}`, '/inbox', '/queues'].map(
      (path) => `/dashboard${path}`,
    )) {
      const { status, text } = await through.ask('GET', page, { headers: { ...PAGE, cookie } });
      expect([page, status]).toEqual([page, 200]);
      for (const [, address = ''] of text.matchAll(/\s(?:href|src|action|poster)="([^"#]+)"/g))
        seen.add(address);
      if (page.endsWith(id)) expect(text).toContain('href=&quot;/dashboard/x&quot; in a prompt');
    }
    const rooted = [...seen].filter((address) => address.startsWith('/'));
    expect(rooted.filter((address) => !address.startsWith('/reels/'))).toEqual([]);
    for (const address of rooted.filter((one) => !/logout|resume/.test(one))) {
      const path = address.replaceAll('&amp;', '&').slice('/reels'.length);
      const { status } = await through.ask('GET', path, { headers: { ...PAGE, cookie } });
      expect([address, status < 400]).toEqual([address, true]);
    }
  });

  test('a page that has not changed is answered with 304', async () => {
    const { cookie } = await visit(through, OPERATOR);
    const ask = (more: Record<string, string> = {}) =>
      through.ask('GET', '/dashboard/inbox', { headers: { ...PAGE, cookie, ...more } });
    const tag = (await ask()).headers.get('etag') ?? '';
    expect(await ask({ 'if-none-match': tag })).toMatchObject({ status: 304, text: '' });
  });

  (browserPath === null ? test.skip : test)('pages are live, and the queues are shown', async () => {
    const browser = await launchBrowser();
    try {
      const context = await browser.newContext({ baseURL: proxy.url });
      const page = await context.newPage();
      const met: string[] = [];
      page.on('console', (message) => met.push(message.text()));
      page.on('requestfailed', (request) => met.push(`${request.url()} ${request.failure()?.errorText}`));
      page.on('response', (answer) => met.push(`${answer.status()} ${answer.url()}`));
      await page.goto('/reels/dashboard');
      await page.getByLabel('Name').fill(OPERATOR.user);
      await page.getByLabel('Password').fill(OPERATOR.password);
      await page.getByRole('button', { name: 'Log in' }).click();
      await page
        .locator('#connection[data-state=live]')
        .waitFor()
        .catch(async (error: Error) => {
          throw new Error(`${page.url()} ${met.join(', ')} ${await page.innerText('body')}`, {
            cause: error,
          });
        });
      await page.goto('/reels/dashboard/queues');
      await page.getByText('submit').first().waitFor();
      await page.getByText('submit').first().click();
      await page.waitForURL(/\/reels\/dashboard\/queues\/queue\/submit/);
    } finally {
      await browser.close();
    }
  });
});

test('an address below the dashboard that does not exist is a page for a browser', async () => {
  const { get } = await visit(stage.api, OPERATOR);
  for (const path of [
    '/dashboard/nowhere',
    '/dashboard/assets/old/main.js',
    '/dashboard/generations/x/y',
    '/dashboard/queues/nowhere',
    '/dashboard/queues/static/nowhere.js',
  ]) {
    const { status, headers } = await get(path);
    expect([path, status, headers.get('content-type')]).toEqual([
      path,
      404,
      expect.stringContaining('text/html'),
    ]);
  }
});

test('an idle connection stays open for longer than balancers keep theirs', async () => {
  const { headers } = await stage.api.ask('GET', '/healthz');
  expect(Number(/timeout=(\d+)/.exec(headers.get('keep-alive') ?? '')?.[1])).toBeGreaterThan(60);
});
