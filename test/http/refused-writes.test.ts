/** While Redis answers and takes no writes, the doors say so of what would change something, and go on to show the rest. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { createOpenApiDocument } from '../../src/http/openapi.js';
import { startApi, type Answer, type TestApi } from '../support/api.js';
import { ACCOUNTS, OPERATOR, visit } from '../support/dashboard.js';
import { REFUSALS } from '../support/refusals.js';
import { createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const TOKEN = 'token-of-all-tenants';

let redis: LaunchedRedis;
let bed: Testbed;
let api: TestApi;
const cleanUps: (() => Promise<unknown>)[] = [];
beforeEach(async () => {
  redis = await launchRedis();
  bed = await createTestbed({ redisUrl: redis.url });
  bed.redis.on('error', () => {});
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
  await api.close();
  await bed.close();
  await redis.kill();
  await redis.stop();
});

const post = (path: string, body: unknown) =>
  api.ask('POST', `/v1/generations${path}`, { token: TOKEN, body });

/** Reads of every route that only reads and ends, of this generation. */
const reads = (id: string): string[] =>
  Object.entries(createOpenApiDocument().paths)
    .filter(([path, methods]) => 'get' in methods && !/events|assets/.test(path))
    .map(([path]) => path.replace('{id}', id));

function refused({ status, headers, body }: Answer, code: string): void {
  expect(body).toMatchObject({ status: 503, code: 'writes_refused' });
  expect((body as { detail: string }).detail).toBe(
    `Redis takes no writes just now (${code}). Nothing was recorded: ask again later.`,
  );
  expect(status).toBe(503);
  expect(headers.get('content-type')).toContain('application/problem+json');
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
}

(realRedis ? describe : describe.skip).each(REFUSALS)('while Redis says $code', ({ code, begin, end }) => {
  test.each(['600', '0'])(
    'with API_RATE_LIMIT=%s what would change something is 503 and not recorded; what only reads is shown',
    async (API_RATE_LIMIT) => {
      api = await startApi(bed, { API_TOKENS: TOKEN, API_RATE_LIMIT, ...ACCOUNTS });
      const workers = await bed.work();
      const unconfirmed = await bed.enqueue('unclear [sim: submit=502-after]');
      const failed = await bed.enqueue('refused by the provider [sim: result=failed]');
      await bed.reaches(unconfirmed.id, 'unconfirmed');
      await bed.reaches(failed.id, 'failed');
      await workers.close();
      const waiting = await bed.enqueue('waits');
      const visitor = await visit(api, OPERATOR);
      const before = await bed.reelhaul.list();

      cleanUps.push(() => end(bed.redis));
      await begin(bed.redis);
      const order = { request: { prompt: 'in vain', image }, idempotencyKey: 'k' };
      refused(await post('', order), code);
      refused(await post(`/${waiting.id}/cancel`, undefined), code);
      refused(await post(`/${failed.id}/retry`, {}), code);
      refused(await post(`/${unconfirmed.id}/decision`, { giveUp: true }), code);
      refused(await post(`/${unconfirmed.id}/decision`, { adopt: 'a-task' }), code);
      for (const path of reads(failed.id))
        expect([path, (await api.ask('GET', path, { token: TOKEN })).status]).toEqual([path, 200]);
      for (const path of ['', '/generations', `/generations/${failed.id}`, '/inbox'])
        expect([path, (await visitor.get(`/dashboard${path}`)).status]).toEqual([path, 200]);

      // Within a second all who look at it see the same.
      const told = async () =>
        (await visitor.get('/dashboard')).text.includes(`Redis refused a write: ${code} `);
      await until(told, 'the overview to say so');

      await end(bed.redis);
      expect(await bed.reelhaul.list()).toEqual(before);
      expect((await post('', order)).status).toBe(201);
    },
  );
});
