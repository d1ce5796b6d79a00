/**
 * `npm run screenshots`: the pictures of the documentation, taken anew in a real browser of a real reelhaul: a Redis, the
 * simulator, workers, the server. The hour before, which nobody wants to wait for, is written as a run leaves it.
 */
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Redis } from 'ioredis';
import type { Page } from 'playwright-core';
import { v7 as uuidv7 } from 'uuid';
import { launchRedis } from '../../src/cli/demo/redis-server.js';
import { createKeys } from '../../src/store/keys.js';
import { createMoves } from '../../src/generation/observers.js';
import { readRecord } from '../../src/store/read-record.js';
import type { State } from '../../src/generation/states.js';
import { startFigures } from '../../src/telemetry/time-series.js';
import { launchBrowser } from '../support/browser.js';
import { openStage, OPERATOR, visit, type Stage } from '../support/dashboard.js';

const FOLDER = fileURLToPath(new URL('../../../docs/screenshots/', import.meta.url));
const WIDE = { width: 1280, height: 860 };
const PHONE = { width: 360, height: 780 };
const PROMPTS = [
  'A lighthouse in a storm, waves breaking over the rocks',
  'A paper boat sailing down a rainy street',
  'Morning fog lifting from a pine forest',
  'A kite above the dunes, slow pan to the sea',
  'Neon reflections on wet asphalt at night',
  'A cat asleep on a warm windowsill',
] as const;
const TENANTS = ['studio', 'newsroom', 'default'] as const;
const MINUTE = 60_000;

/** The same pictures each time: a wave with something on it that looks like chance. */
const perMinute = (minute: number) => Math.round(11 + 6 * Math.sin(minute / 8) + 3 * Math.sin(minute * 2.7));

function failureCode(n: number): string | null {
  if (n % 53 === 0) return 'request_rejected';
  if (n % 71 === 0) return 'task_failed';
  return n % 131 === 0 ? 'deadline_exceeded' : null;
}

async function writeHour(redis: Redis, prefix: string): Promise<void> {
  const keys = createKeys(prefix);
  const onError = (error: unknown) => process.stderr.write(`${String(error)}\n`);
  const moves = createMoves(onError);
  const figures = startFigures({ redis, keys, moves, onError });
  const now = Date.now();
  const pipeline = redis.pipeline();
  let n = 0;
  for (let minute = 60; minute >= 1; minute--) {
    for (let i = 0; i < perMinute(minute); i++, n++) {
      const at = now - minute * MINUTE + i * 3000;
      const waitedMs = 400 + (n % 7) * 350;
      const workedMs = 42_000 + (n % 17) * 4200 + (n % 41 === 0 ? 90_000 : 0);
      const savedMs = 1800 + (n % 11) * 260;
      const code = failureCode(n + 1);
      const [submittedAt, newsAt] = [at + waitedMs, at + waitedMs + workedMs];
      const fields = {
        createdAt: String(at),
        submittedAt: String(submittedAt),
        acceptedAt: String(submittedAt),
      };
      const tell = (from: State, to: State, when: number, set = {}) => {
        const record = readRecord('', { ...fields, state: from, trail: `a${newsAt - at}` });
        moves.tell({ record, from, to, at: when, change: { set } });
      };
      tell('submitting', 'generating', submittedAt);
      if (newsAt + savedMs > now) continue;
      if (code === null) {
        tell('generating', 'archiving', newsAt);
        tell('archiving', 'succeeded', newsAt + savedMs, {
          assets: JSON.stringify({ video: { sizeBytes: 9_400_000 } }),
        });
      } else tell('generating', 'failed', newsAt, { failure: JSON.stringify({ code }) });
      const state = code === null ? 'succeeded' : 'failed';
      const id = uuidv7({ msecs: at });
      const tenant = TENANTS[n % 3]!;
      const request = JSON.stringify({ prompt: PROMPTS[n % 6], model: 'gen4', ratio: '1280:720' });
      const failure =
        code === null
          ? {}
          : {
              failure: JSON.stringify({
                code,
                message: code,
                stage: 'poll',
                retryable: false,
                charge: 'none',
              }),
            };
      const record = {
        ...fields,
        ...failure,
        v: 1,
        state,
        tenant,
        updatedAt: newsAt,
        finishedAt: newsAt + savedMs,
        request,
        submits: JSON.stringify([{ at: newsAt, bill: 'charged' }]),
      };
      pipeline.hset(keys.record(id), record);
      pipeline.zadd(keys.state(state), 0, id);
      pipeline.zadd(keys.tenantState(tenant, state), 0, id);
    }
  }
  const day = Math.floor(now / 86_400_000);
  for (const [tenant, amount] of [
    ['studio', 131],
    ['newsroom', 96],
    ['default', 40],
  ] as const) {
    pipeline.hincrby(`${prefix}:spend:${day}`, `charged:${tenant}`, amount * 1e6);
    pipeline.hincrby(`${prefix}:spend:${day}`, 'charged', amount * 1e6);
  }
  await pipeline.exec();
  await figures.close();
}

interface Cast {
  readonly finished: string;
  readonly unconfirmed: string;
}

/** What happens before the pictures: some finish, one is lost in the middle, one cannot be stored, some still run. */
async function play({ bed }: Stage): Promise<Cast> {
  const { simulator } = bed;
  const order = async (script: string, i: number, state: State | null) => {
    simulator.setScript(script);
    const image = 'https://cdn.example.com/still.png';
    const options = { tenant: TENANTS[i % 3]!, idempotencyKey: `order-${4711 + i}` };
    const { id } = await bed.reelhaul.enqueue({ prompt: PROMPTS[i % 6]!, image }, options);
    if (state !== null) await bed.reaches(id, state);
    else await simulator.waitForSubmit(({ seq }) => seq > i);
    return id;
  };
  const unconfirmed = await order('submit=502-after, callback=lost', 0, 'unconfirmed');
  await order('video=garbage*9', 1, 'failed');
  let finished = '';
  for (let i = 2; i < 8; i++) finished = await order('duration=2500ms', i, 'succeeded');
  for (let i = 8; i < 12; i++) await order(`duration=${30 + 6 * (i - 8)}s`, i, 'generating');
  return { finished, unconfirmed };
}

async function main(): Promise<void> {
  const redis = await launchRedis();
  process.env['TEST_REDIS_URL'] = redis.url;
  const environment = {
    ARCHIVE_ATTEMPTS: '2',
    UNCONFIRMED_WAIT_MS: '3600000',
    MAX_IN_FLIGHT: '24',
    PRICES: '{"*": 0.35}',
    BUDGET_PER_DAY: '400',
    BUDGET_PER_TENANT_PER_DAY: '200',
  };
  const stage = await openStage({ redisUrl: redis.url, environment });
  const browser = await launchBrowser();
  try {
    await writeHour(stage.bed.redis, stage.bed.prefix);
    await stage.bed.work();
    const { finished, unconfirmed } = await play(stage);
    await mkdir(FOLDER, { recursive: true });
    const [name = '', value = ''] = (await visit(stage.api, OPERATOR)).cookie.split('=');

    const take = async (
      file: string,
      path: string,
      viewport: typeof WIDE,
      colorScheme: 'light' | 'dark',
      prepare: (page: Page) => Promise<unknown> = () => Promise.resolve(),
    ) => {
      const context = await browser.newContext({
        viewport,
        colorScheme,
        baseURL: stage.api.url,
        reducedMotion: 'reduce',
      });
      await context.addCookies([{ name, value, url: stage.api.url, httpOnly: true, sameSite: 'Strict' }]);
      const page = await context.newPage();
      await page.goto(path);
      await page.locator('#connection[data-state=live]').waitFor();
      await prepare(page);
      await page.screenshot({ path: `${FOLDER}${file}.png` });
      await context.close();
      process.stdout.write(`docs/screenshots/${file}.png\n`);
    };
    const opened = (page: Page) => page.locator('#action-resubmit summary').click();
    const film = (page: Page) =>
      page.locator('video').evaluate(async (element) => {
        const video = element as unknown as {
          currentTime: number;
          play(): Promise<void>;
          pause(): void;
        };
        await video.play();
        while (video.currentTime < 0.4) await new Promise((resolve) => setTimeout(resolve, 10));
        video.pause();
      });
    await take('overview', '/dashboard', { width: 1280, height: 1000 }, 'light');
    await take('generation', `/dashboard/generations/${finished}`, WIDE, 'light', film);
    await take('unconfirmed-dark', `/dashboard/generations/${unconfirmed}`, WIDE, 'dark', opened);
    await take('overview-phone', '/dashboard', PHONE, 'light');
  } finally {
    await browser.close();
    await stage.close();
    await redis.stop();
  }
}

await main();
