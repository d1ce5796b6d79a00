/**
 * `npm run bench:dashboard`: what the dashboard costs: its pages with few and with a million finished generations, the
 * bytes of a first visit, and the memory and CPU of a server with 200 open pages.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import { startServer } from '../../src/http/server.js';
import { createHub } from '../../src/pipeline/context.js';
import { fillWithFinished } from './finished.js';

const PREFIX = '{bench}';
const ROUNDS = 30;
const CLIENTS = 200;
const SETTLE_MS = 5000;
const RENEW_MS = 2000;

const print = (text: string) => void process.stdout.write(`${text}\n`);
const MB = (bytes: number) => (bytes / 1e6).toFixed(1);

/** The server in a process of its own, so that its memory is its own. */
async function serve(redisUrl: string): Promise<void> {
  const redis = new Redis(redisUrl);
  const config = readConfig({
    REDIS_URL: redisUrl,
    REDIS_PREFIX: PREFIX,
    PORT: '0',
    STORAGE_URL: 'file:/nowhere',
  });
  const server = await startServer(createHub({ config, log: pino({ level: 'silent' }), redis }));
  process.on('message', () => {
    globalThis.gc?.();
    const { user, system } = process.cpuUsage();
    process.send?.({ ...process.memoryUsage(), cpu: user + system });
  });
  process.send?.({ port: server.port });
}

interface Visit {
  readonly ms: number;
  readonly bytes: number;
  readonly text: string;
}

async function visit(address: string): Promise<Visit> {
  const began = performance.now();
  const response = await fetch(address, { headers: { accept: 'text/html' } });
  const body = Buffer.from(await response.arrayBuffer());
  if (!response.ok) throw new Error(`${address} was answered with ${response.status}`);
  return { ms: performance.now() - began, bytes: body.length, text: body.toString() };
}

function spread(figures: readonly number[]): string {
  const sorted = figures.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!.toFixed(1);
  return `${at(0.5)} (${at(0)} to ${at(1)})`;
}

/** The next page of a list, as its link says. */
const olderIn = (text: string): string | null =>
  /rel="next"\s+href="([^"]+)"/.exec(text)?.[1]?.replaceAll('&amp;', '&') ?? null;

async function walk(base: string, path: string): Promise<number[]> {
  const figures: number[] = [];
  let next: string | null = path;
  for (let i = 0; i < ROUNDS && next !== null; i++) {
    const { ms, text }: Visit = await visit(base + next);
    figures.push(ms);
    next = olderIn(text) ?? path;
  }
  return figures;
}

async function again(base: string, path: string): Promise<number[]> {
  const figures: number[] = [];
  for (let i = 0; i < ROUNDS; i++) figures.push((await visit(base + path)).ms);
  return figures;
}

async function firstVisit(base: string, path: string): Promise<string> {
  const page = await visit(base + path);
  const files = [...page.text.matchAll(/(?:href|src)="(\/dashboard\/assets\/[^"]+)"/g)].map(
    ([, file]) => file!,
  );
  const main = files.find((file) => file.endsWith('main.js'))!;
  const imported = ['focus.js', 'morph.js', 'forms.js', 'times.js'].map((name) =>
    main.replace('main.js', name),
  );
  let bytes = page.bytes;
  for (const file of new Set([...files, ...imported])) bytes += (await visit(base + file)).bytes;
  return `${(bytes / 1000).toFixed(1)} KB, of it ${(page.bytes / 1000).toFixed(1)} KB of HTML`;
}

/** Open pages: each asks for itself every two seconds, as the script of the pages does. */
function openPages(base: string, count: number): { asked: () => number; close: () => Promise<void> } {
  const closed = new AbortController();
  let asked = 0;
  const keepUpToDate = async (n: number): Promise<void> => {
    let tag = '';
    await wait((n * RENEW_MS) / count);
    while (!closed.signal.aborted) {
      const response = await fetch(`${base}/dashboard/generations`, {
        headers: { accept: 'text/html', 'if-none-match': tag },
      });
      await response.arrayBuffer();
      tag = response.headers.get('etag') ?? '';
      asked += 1;
      await wait(RENEW_MS);
    }
  };
  const pages = Array.from({ length: count }, (_, n) => keepUpToDate(n));
  return {
    asked: () => asked,
    async close() {
      closed.abort();
      await Promise.all(pages);
    },
  };
}

async function measure(finished: number): Promise<void> {
  const redis = await launchRedis();
  const client = new Redis(redis.url);
  print(
    `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Redis ${redis.description}`,
  );
  const server = fork(fileURLToPath(import.meta.url), ['--serve', redis.url], { execArgv: ['--expose-gc'] });
  const [{ port }] = (await once(server, 'message')) as [{ port: number }];
  const base = `http://127.0.0.1:${port}`;
  const memory = async (): Promise<NodeJS.MemoryUsage & { cpu: number }> => {
    server.send('memory');
    const [answer] = (await once(server, 'message')) as [NodeJS.MemoryUsage & { cpu: number }];
    return answer;
  };

  for (const count of [10_000, finished]) {
    await fillWithFinished(client, PREFIX, count);
    print(`with ${count.toLocaleString('en')} more finished, ms a page, median (spread) of ${ROUNDS}:`);
    print(`  overview            ${spread(await again(base, '/dashboard'))}`);
    print(`  list, page by page  ${spread(await walk(base, '/dashboard/generations'))}`);
    print(
      `  list of one tenant  ${spread(await walk(base, '/dashboard/generations?state=succeeded&tenant=default'))}`,
    );
    print(`  a model nobody has  ${spread(await walk(base, '/dashboard/generations?model=none'))}`);
    print(`  inbox               ${spread(await again(base, '/dashboard/inbox'))}`);
  }
  print(`first visit, overview:      ${await firstVisit(base, '/dashboard')}`);
  print(`first visit, list of 50:    ${await firstVisit(base, '/dashboard/generations')}`);

  const before = await memory();
  const pages = openPages(base, CLIENTS);
  print(`${CLIENTS} open pages, each renewed every ${RENEW_MS} ms; heap and rss in MB after a collection:`);
  print(`  before              ${MB(before.heapUsed)}, ${MB(before.rss)}`);
  for (let i = 1; i <= 6; i++) {
    await wait(2 * SETTLE_MS);
    const { heapUsed, rss, cpu } = await memory();
    print(
      `  after ${String(i * 10).padStart(2)} s          ${MB(heapUsed)}, ${MB(rss)}; ${pages.asked()} pages so far, the server used ${(cpu / 1e6).toFixed(1)} s of CPU`,
    );
  }
  await pages.close();
  await wait(SETTLE_MS);
  const after = await memory();
  print(`  all closed          ${MB(after.heapUsed)}, ${MB(after.rss)}`);
  server.kill();
  await client.quit();
  await redis.stop();
}

const { values, positionals } = parseArgs({
  options: { finished: { type: 'string', default: '1000000' }, serve: { type: 'boolean' } },
  allowPositionals: true,
});
if (values.serve) await serve(positionals[0]!);
else await measure(Number(values.finished));
