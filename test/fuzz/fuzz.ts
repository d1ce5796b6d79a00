/** Sends random requests to a real server, and says what came back and how the server fared. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createOpenApiDocument } from '../../src/http/openapi.js';
import { createDice } from './dice.js';
import { ACCOUNT, makeRequest, READER, TOKEN, type FuzzRequest } from './requests.js';
import type { Figures } from './server.js';

/** The compiled one, also for a test that Jest compiles itself. */
const SERVER = fileURLToPath(new URL('../../dist/test/fuzz/server.js', import.meta.url)).replace(
  'dist/dist',
  'dist',
);
/** Half a request has no answer. */
const WAIT_MS = { whole: 30_000, part: 100 } as const;

export interface FuzzOptions {
  readonly cases: number;
  readonly seed: number;
  readonly atOnce: number;
  readonly environment: Readonly<Record<string, string>>;
  /** Routes beside those of the API's document, such as those of a generation. */
  readonly generationId: string;
  readonly onFigures?: (done: number, figures: Figures) => void;
}

export interface FuzzResult {
  /** How many were answered with each status; 0: the connection was closed or left without an answer. */
  readonly statuses: Readonly<Record<number, number>>;
  /** The numbers of cases that were answered with 500. */
  readonly failed: readonly number[];
  readonly figures: readonly Figures[];
}

/** Every route there is, with ids that exist and some that do not. */
function routesFor(id: string): string[] {
  const api = Object.keys(createOpenApiDocument().paths).map((path) =>
    path.replace('{id}', id).replace('{name}', 'video'),
  );
  const pages = [
    '',
    '/generations',
    `/generations/${id}`,
    '/inbox',
    '/queues',
    '/login',
    '/logout',
    '/resume',
  ];
  const board = [
    '/api/queues',
    '/api/queues/submit/pause',
    '/api/queues/submit/clean/completed',
    '/static/x',
  ];
  return [
    ...api,
    ...pages.map((path) => `/dashboard${path}`),
    ...board.map((path) => `/dashboard/queues${path}`),
    `/dashboard/generations/${id}/assets/video`,
    `/callbacks/runway/${id}/${'x'.repeat(43)}`,
    `/files/${id}/video`,
    ...['/', '/healthz', '/readyz', '/metrics', '/docs', '/openapi.json', '/nowhere'],
  ];
}

/** @returns the status of the answer; 0 when there was none */
async function send(port: number, { parts, pauseMs, cut, whole }: FuzzRequest): Promise<number> {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  const over = new Promise<void>((resolve) => {
    socket.on('data', (data) => {
      if (answer.length < 100) answer += data.toString('latin1');
    });
    for (const event of ['close', 'end', 'error'] as const) socket.once(event, () => resolve());
  });
  for (const part of parts) {
    if (socket.destroyed) break;
    socket.write(part);
    if (pauseMs > 0) await wait(pauseMs);
  }
  if (cut) socket.end();
  if (answer === '')
    await Promise.race([
      over,
      once(socket, 'data').catch(() => {}),
      wait(whole ? WAIT_MS.whole : WAIT_MS.part),
    ]);
  socket.destroy();
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0);
}

async function logIn(port: number): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/dashboard/login`, {
    method: 'POST',
    redirect: 'manual',
    body: new URLSearchParams(ACCOUNT),
  });
  return (response.headers.get('set-cookie') ?? '').split(';')[0] ?? '';
}

export async function fuzz(options: FuzzOptions): Promise<FuzzResult> {
  const { cases, seed, atOnce, environment, generationId, onFigures } = options;
  const { PATH = '', HOME = '' } = process.env;
  const server = fork(SERVER, [], {
    env: {
      PATH,
      HOME,
      ...environment,
      PORT: '0',
      API_RATE_LIMIT: '0',
      API_TOKENS: `${TOKEN},${READER}::ro`,
      DASHBOARD_USER: ACCOUNT.user,
      DASHBOARD_PASSWORD: ACCOUNT.password,
    },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  try {
    const [{ port }] = (await once(server, 'message')) as [{ port: number }];
    const routes = routesFor(generationId);
    const cookie = await logIn(port);
    const statuses: Record<number, number> = {};
    const failed: number[] = [];
    const figures: Figures[] = [];
    let next = 0;
    const look = async (): Promise<void> => {
      server.send({});
      const [seen] = (await once(server, 'message')) as [Figures];
      figures.push(seen);
      onFigures?.(next, seen);
    };
    const every = Math.max(1, Math.ceil(cases / 20));
    const lane = async (): Promise<void> => {
      while (next < cases) {
        const number = next++;
        const status = await send(port, makeRequest(createDice(seed + number), routes, cookie));
        statuses[status] = (statuses[status] ?? 0) + 1;
        if (status === 500) failed.push(number);
        if (number % every === every - 1) await look();
      }
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
    const health = await fetch(`http://127.0.0.1:${port}/healthz`);
    if (health.status !== 200)
      throw new Error(`after all of it the server is not well: ${await health.text()}`);
    await look();
    return { statuses, failed, figures };
  } finally {
    server.kill('SIGKILL');
  }
}
