/** The page of a generation shows what it starts from, and links its neighbours in a chain. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { POSTER_PNG } from '../../../src/simulator/fixtures.js';
import { image } from '../../support/testbed.js';
import { openStage, OPERATOR, visit, type Stage, type Visit } from '../../support/dashboard.js';

let stage: Stage;
let operator: Visit;

beforeAll(async () => {
  stage = await openStage({
    environment: { PUBLIC_URL: 'http://127.0.0.1:9', CALLBACK_SECRET: 'a secret for the tests' },
  });
  operator = await visit(stage.api, OPERATOR);
});
afterAll(() => stage.close());

test('an upload is shown as a picture, and a chain links its neighbours', async () => {
  const { reelhaul } = stage.bed;
  const upload = await reelhaul.addInput(POSTER_PNG);
  const one = await reelhaul.enqueue({ prompt: 'one', image: { input: upload.id } });
  const two = await reelhaul.enqueue({ prompt: 'two', image: { generation: one.id, asset: 'lastFrame' } });

  const before = await operator.get(`/dashboard/generations/${one.id}`);
  const src = `/dashboard/generations/${one.id}/inputs/image`;
  expect(before.text).toContain(`src="${src}"`);
  expect(before.text).toContain(`href="/dashboard/generations/${two.id}"`);
  const after = await operator.get(`/dashboard/generations/${two.id}`);
  expect(after.text).toContain(`href="/dashboard/generations/${one.id}"`);
  expect(after.text).toContain(`It starts from an asset of generation ${one.id}.`);
  expect(after.text).not.toContain('<img class="input"');

  const { cookie } = operator;
  const picture = await stage.api.fetch('GET', src, { headers: { cookie } });
  expect([picture.status, picture.headers.get('content-type')]).toEqual([200, 'image/png']);
  expect(Buffer.from(await picture.arrayBuffer()).equals(POSTER_PNG)).toBe(true);
  expect((await stage.api.fetch('GET', src)).status).toBe(401);
  expect((await operator.get(`/dashboard/generations/${one.id}/inputs/prompt`)).status).toBe(404);
  expect((await operator.get(`/dashboard/generations/${two.id}/inputs/image`)).status).toBe(404);
});

test('a public URL is named, and not loaded', async () => {
  const { id } = await stage.bed.reelhaul.enqueue({ prompt: 'from a URL', image });
  const { text } = await operator.get(`/dashboard/generations/${id}`);
  expect(text).toContain(`<code class="key">${image}</code>`);
  expect(text).not.toContain(`src="${image}"`);
});
