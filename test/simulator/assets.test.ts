import { createHash } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { mediaFor, sha256Of } from '../../src/simulator/media.js';
import { startSimulator, type AssetName, type Simulator } from '../../src/simulator/simulator.js';
import { call, jsonOf, poll, taskUnder, type Call, type Seen } from './visitor.js';

let simulator: Simulator;
beforeEach(async () => {
  simulator = await startSimulator({ apiKey: 'sk-right' });
});
afterEach(() => simulator.close());

const key = { Authorization: 'Bearer sk-right' };

interface Links {
  readonly taskId: string;
  readonly video: string;
  readonly poster: string;
  readonly lastFrame: string;
}

async function linksOf(taskId: string): Promise<Links> {
  const { data } = jsonOf(await poll(simulator, taskId, { headers: key })) as {
    data: { video_url: string; poster: string; last_frame: string };
  };
  return { taskId, video: data.video_url, poster: data.poster, lastFrame: data.last_frame };
}

/** A finished task under this script and its links. */
async function finished(script: string): Promise<Links> {
  const taskId = await taskUnder(simulator, ['shape=O', script].filter(Boolean).join(', '), { headers: key });
  return linksOf(taskId);
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** The top-level boxes of an MP4, with their sizes; throws where the file ends inside one. */
function boxesOf(bytes: Buffer): [type: string, sizeBytes: number][] {
  const boxes: [string, number][] = [];
  for (let at = 0; at < bytes.length;) {
    const short = bytes.readUInt32BE(at);
    const sizeBytes = short === 1 ? Number(bytes.readBigUInt64BE(at + 8)) : short;
    if (sizeBytes < 8 || at + sizeBytes > bytes.length)
      throw new Error(`a box ends beyond the file at ${at}`);
    boxes.push([bytes.toString('latin1', at + 4, at + 8), sizeBytes]);
    at += sizeBytes;
  }
  return boxes;
}

test('the files are what the books say, and no two tasks share one', async () => {
  const links = [await finished(''), await finished('id=number')];
  const bodies: string[] = [];
  for (const { taskId, ...urls } of links) {
    const task = simulator.ledger().tasks.find((candidate) => candidate.taskId === taskId);
    for (const asset of ['video', 'poster', 'lastFrame'] as const) {
      const seen = await call(urls[asset]);
      expect(seen).toMatchObject({ status: 200, complete: true });
      expect(seen.headers['content-type']).toBe(asset === 'video' ? 'video/mp4' : 'image/jpeg');
      expect(seen.headers['content-length']).toBe(String(seen.body.length));
      expect(task?.assets[asset]).toMatchObject({ sizeBytes: seen.body.length, sha256: sha256(seen.body) });
      expect(await simulator.expectedSha256(taskId, asset)).toBe(sha256(seen.body));
      bodies.push(sha256(seen.body));
    }
  }
  expect(new Set(bodies).size).toBe(6);
});

test('the video is an MP4 with its index in front and the task id where players do not look', async () => {
  const { video, taskId } = await finished('');
  const { body } = await call(video);
  expect(boxesOf(body).map(([type]) => type)).toEqual(['ftyp', 'moov', 'free', 'mdat', 'free']);
  expect(body.toString('latin1')).toContain(`task ${taskId}`);
  expect(body.length).toBeLessThan(10_000);
});

test('poster and last frame are images', async () => {
  const jpeg = await finished('');
  for (const url of [jpeg.poster, jpeg.lastFrame]) {
    const { body } = await call(url);
    expect(body.subarray(0, 4).toString('hex')).toBe('ffd8fffe');
    expect(body.subarray(-2).toString('hex')).toBe('ffd9');
  }
  const png = await finished('poster-format=png');
  expect(png.poster).toContain('/poster.png?');
  const { body, headers } = await call(png.poster);
  expect(headers['content-type']).toBe('image/png');
  expect(body.subarray(0, 8).toString('hex')).toBe('89504e470d0a1a0a');
  expect(body.subarray(-8, -4).toString('latin1')).toBe('IEND');
});

test('a big video is made while it is read, and is a whole MP4', async () => {
  const { video, taskId } = await finished('size=3MB');
  expect(simulator.ledger().tasks[0]?.assets.video).toMatchObject({ sizeBytes: 3 * 1024 ** 2, sha256: null });
  const { body } = await call(video);
  expect(body.length).toBe(3 * 1024 ** 2);
  expect(boxesOf(body).map(([type]) => type)).toEqual(['ftyp', 'moov', 'free', 'mdat', 'free', 'mdat']);
  const seen = await call(`${simulator.url}/expected/${taskId}/video`);
  expect(jsonOf(seen)).toEqual({ sizeBytes: body.length, sha256: sha256(body) });
  expect(simulator.ledger().tasks[0]?.assets.video.sha256).toBe(sha256(body));
});

test('2 GB are described and read from any place without being held', () => {
  const media = mediaFor('video', { taskId: 'rw1', videoSizeBytes: 2 * 1024 ** 3, posterFormat: 'jpeg' });
  expect(media.sizeBytes).toBe(2 * 1024 ** 3);
  const end = media.sizeBytes;
  const pieces = [...media.read(end - 300_000, end)];
  expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBe(300_000);
  expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThanOrEqual(256 * 1024);
});

test('parts of a file are the same bytes wherever they start', async () => {
  const media = mediaFor('video', { taskId: 'rw1', videoSizeBytes: 2_500_000, posterFormat: 'jpeg' });
  const whole = Buffer.concat([...media.read(0, media.sizeBytes)]);
  const parts = Buffer.concat([...media.read(0, 1_234_567), ...media.read(1_234_567, media.sizeBytes)]);
  expect(parts.equals(whole)).toBe(true);
  expect(await sha256Of(media)).toBe(sha256(whole));
});

interface Row {
  readonly step: string;
  readonly status: number | null;
  readonly check?: (seen: Seen, wholeBytes: number) => void;
  readonly call?: Call;
  readonly complete?: boolean;
}

const rows: readonly Row[] = [
  { step: 'ok', status: 200 },
  { step: '403', status: 403, check: ({ body }) => expect(body.toString()).toContain('AccessDenied') },
  { step: '404', status: 404 },
  { step: '410', status: 410 },
  { step: '500', status: 500 },
  { step: '503', status: 503 },
  {
    step: 'truncated',
    status: 200,
    complete: false,
    check: ({ body, headers }, wholeBytes) => {
      expect(headers['content-length']).toBe(String(wholeBytes));
      expect(body.length).toBe(Math.floor(wholeBytes / 2));
    },
  },
  {
    step: 'drop',
    status: 200,
    complete: false,
    check: ({ body }, wholeBytes) => expect(body.length).toBe(Math.floor(wholeBytes / 2)),
  },
  {
    step: 'truncated-chunked',
    status: 200,
    check: ({ body, headers }, wholeBytes) => {
      expect(headers['content-length']).toBeUndefined();
      expect(headers['transfer-encoding']).toBe('chunked');
      expect(body.length).toBe(Math.floor(wholeBytes / 2));
    },
  },
  {
    step: 'truncated-close',
    status: 200,
    check: ({ body, headers }, wholeBytes) => {
      expect(headers['content-length']).toBeUndefined();
      expect(headers['transfer-encoding']).toBeUndefined();
      expect(body.length).toBe(Math.floor(wholeBytes / 2));
    },
  },
  {
    step: 'cut-chunked',
    status: 200,
    complete: false,
    check: ({ headers }) => expect(headers['transfer-encoding']).toBe('chunked'),
  },
  {
    step: 'short',
    status: 200,
    check: ({ body }, wholeBytes) => {
      expect(body.length).toBe(Math.floor(wholeBytes / 2));
      expect(() => boxesOf(body)).toThrow('beyond the file');
    },
  },
  {
    step: 'surplus',
    status: 200,
    check: ({ headers }, wholeBytes) =>
      expect(headers['content-length']).toBe(String(Math.floor(wholeBytes / 2))),
  },
  {
    step: 'no-length',
    status: 200,
    check: ({ body, headers }, wholeBytes) => {
      expect(headers['content-length']).toBeUndefined();
      expect(body.length).toBe(wholeBytes);
    },
  },
  { step: 'empty', status: 200, check: ({ body }) => expect(body.length).toBe(0) },
  {
    step: 'html',
    status: 200,
    check: ({ body, headers }) => {
      expect(headers['content-type']).toContain('text/html');
      expect(body.toString()).toMatch(/^<!DOCTYPE html>/);
    },
  },
  { step: 'html:404', status: 404 },
  { step: 'json', status: 200, check: (seen) => expect(jsonOf(seen)).toHaveProperty('error') },
  {
    step: 'garbage',
    status: 200,
    check: ({ body, headers }, wholeBytes) => {
      expect(headers['content-type']).toBe('video/mp4');
      expect(body.length).toBe(wholeBytes);
      expect(body.equals(Buffer.alloc(wholeBytes, 0x5a))).toBe(true);
    },
  },
  {
    step: 'no-moov',
    status: 200,
    check: ({ body }) =>
      expect(boxesOf(body).map(([type]) => type)).toEqual(['ftyp', 'free', 'mdat', 'free']),
  },
  { step: 'gzip', status: 200, check: ({ headers }) => expect(headers['content-encoding']).toBe('gzip') },
  {
    step: 'slow:60ms',
    status: 200,
    check: ({ body }, wholeBytes) => expect(body.length).toBe(wholeBytes),
  },
  { step: 'hang', status: null, complete: false, call: { leaveAfterMs: 50 } },
  {
    step: 'stall',
    status: 200,
    complete: false,
    call: { leaveAfterMs: 50 },
    check: ({ body }, wholeBytes) => expect(body.length).toBe(Math.floor(wholeBytes / 2)),
  },
  {
    step: 'endless',
    status: 200,
    complete: false,
    call: { leaveAfterBytes: 500_000 },
    check: ({ body }) => expect(boxesOf(body.subarray(0, 32)).map(([type]) => type)).toEqual(['ftyp']),
  },
  { step: 'reset', status: null, complete: false },
  { step: 'missing', status: 404 },
];

test.each(rows)(
  'video=$step answers $status once, then the file',
  async ({ step, status, check, call: how, complete }) => {
    const taskId = await taskUnder(simulator, `video=${step}`, { headers: key });
    const url = `${simulator.url}/assets/${taskId}/video.mp4`;
    const seen = await call(url, how);
    expect(seen.status).toBe(status);
    expect(seen.complete).toBe(complete ?? true);
    const wholeBytes = simulator.ledger().tasks[0]?.assets.video.sizeBytes ?? 0;
    check?.(seen, wholeBytes);
    const next = await call(url);
    expect(sha256(next.body)).toBe(await simulator.expectedSha256(taskId, 'video'));
    const requests = await simulator.waitUntil((ledger) => {
      const entries = ledger.tasks[0]?.assetRequests ?? [];
      return entries.every(({ doneAt }) => doneAt !== null) && entries;
    });
    expect(requests).toMatchObject([
      { asset: 'video', step: step.split(':')[0], httpStatus: status, leakedKey: false },
      { asset: 'video', step: 'ok', httpStatus: 200, sentBytes: wholeBytes },
    ]);
  },
);

test.each(['poster', 'lastFrame'] as const)('%s has steps of its own', async (asset) => {
  const links = await finished(`${asset === 'poster' ? 'poster' : 'last-frame'}=404*forever`);
  expect((await call(links[asset])).status).toBe(404);
  expect((await call(links[asset])).status).toBe(404);
  expect((await call(links.video)).status).toBe(200);
});

test('the type of the video can be another', async () => {
  const { video } = await finished('video-type=application/octet-stream');
  expect((await call(video)).headers['content-type']).toBe('application/octet-stream');
});

test('a dead link stays dead until a fresh poll gives a fresh one', async () => {
  const first = await finished('video=expired:410');
  expect((await call(first.video)).status).toBe(410);
  expect((await call(first.video)).status).toBe(410);
  expect((await call(first.poster)).status).toBe(410);
  const second = await linksOf(first.taskId);
  expect(second.video).toContain('?link=2');
  expect((await call(first.video)).status).toBe(410);
  expect((await call(second.video)).status).toBe(200);
  expect((await linksOf(first.taskId)).video).toBe(second.video);
});

test('expired*forever kills every fresh link too', async () => {
  const { taskId, video } = await finished('video=expired*forever');
  expect((await call(video)).status).toBe(403);
  expect((await call((await linksOf(taskId)).video)).status).toBe(403);
  expect((await call((await linksOf(taskId)).video)).status).toBe(403);
});

test('a file of a task that is not finished does not exist', async () => {
  const taskId = await taskUnder(simulator, 'stuck=forever', { headers: key });
  expect((await call(`${simulator.url}/assets/${taskId}/video.mp4`)).status).toBe(404);
  expect((await call(`${simulator.url}/assets/rw-nobody/video.mp4`)).status).toBe(404);
});

test.each([
  ['redirect', /^http:\/\/localhost:\d+\/assets\/.*hop=1$/],
  ['redirect:other-port', /^http:\/\/127\.0\.0\.1:\d+\/assets\/.*hop=1$/],
  ['redirect:private', /^http:\/\/10\.255\.255\.1\/assets\//],
  ['redirect:metadata', /^http:\/\/169\.254\.169\.254\/latest\/meta-data\/$/],
  ['redirect:file', /^file:\/\/\/etc\/passwd$/],
  ['redirect:cdn.example.org', /^http:\/\/cdn\.example\.org\/assets\//],
])('video=%s leads away', async (step, target) => {
  const { video } = await finished(`video=${step}`);
  const seen = await call(video);
  expect(seen.status).toBe(302);
  expect(seen.headers.location).toMatch(target);
});

test.each(['redirect', 'redirect:other-port'])('the file is at the end of video=%s', async (step) => {
  const { taskId, video } = await finished(`video=${step}`);
  const { headers } = await call(video);
  const target = headers.location ?? '';
  expect(new URL(target).host).not.toBe(new URL(video).host);
  expect(sha256((await call(target)).body)).toBe(await simulator.expectedSha256(taskId, 'video'));
});

async function follow(
  url: string,
  hops: number,
): Promise<{ readonly hops: number; readonly status: number | null }> {
  const seen = await call(url);
  if (seen.status !== 302 || hops === 30) return { hops, status: seen.status };
  return follow(seen.headers.location ?? '', hops + 1);
}

test('redirects can be many or endless', async () => {
  expect(await follow((await finished('video=redirect:7')).video, 0)).toEqual({ hops: 7, status: 200 });
  expect(await follow((await finished('video=redirect:loop')).video, 0)).toEqual({ hops: 30, status: 302 });
});

test.each([
  ['localhost', /^http:\/\/localhost:/],
  ['other-port', /^http:\/\/127\.0\.0\.1:/],
  ['10.0.0.7', /^http:\/\/10\.0\.0\.7\/assets\//],
  ['relative', /^\/assets\/[^/]+\/video\.mp4\?link=1$/],
  ['cdn.example.org:8080', /^http:\/\/cdn\.example\.org:8080\/assets\//],
])('asset-host=%s is in the links', async (host, pattern) => {
  const { video } = await finished(`asset-host=${host}`);
  expect(video).toMatch(pattern);
  if (host === 'other-port') expect(new URL(video).port).toBe(String(simulator.otherPort));
});

test('ranges are served, with conditions', async () => {
  const { video } = await finished('');
  const whole = await call(video);
  const sizeBytes = whole.body.length;
  const etag = whole.headers.etag ?? '';
  const part = await call(video, { headers: { Range: 'bytes=100-199' } });
  expect(part).toMatchObject({ status: 206, headers: { 'content-range': `bytes 100-199/${sizeBytes}` } });
  expect(part.body.equals(whole.body.subarray(100, 200))).toBe(true);
  const tail = await call(video, { headers: { Range: 'bytes=-10' } });
  expect(tail.body.equals(whole.body.subarray(-10))).toBe(true);
  const rest = await call(video, { headers: { Range: 'bytes=2000-', 'If-Range': etag } });
  expect(rest).toMatchObject({ status: 206 });
  expect(rest.body.equals(whole.body.subarray(2000))).toBe(true);
  const changed = await call(video, { headers: { Range: 'bytes=2000-', 'If-Range': '"another"' } });
  expect(changed).toMatchObject({ status: 200 });
  const beyond = await call(video, { headers: { Range: `bytes=${sizeBytes}-` } });
  expect(beyond).toMatchObject({ status: 416, headers: { 'content-range': `bytes */${sizeBytes}` } });
});

test('a dropped download can be resumed, again and again', async () => {
  const { taskId, video } = await finished('video=drop*3');
  let got = Buffer.alloc(0);
  const statuses: (number | null)[] = [];
  for (let complete = false; !complete;) {
    const seen = await call(video, { headers: { Range: `bytes=${got.length}-` } });
    got = Buffer.concat([got, seen.body]);
    statuses.push(seen.status);
    ({ complete } = seen);
  }
  expect(statuses).toEqual([206, 206, 206, 206]);
  expect(sha256(got)).toBe(await simulator.expectedSha256(taskId, 'video'));
});

test('a truncated file has no second half, whatever is asked for', async () => {
  const { video } = await finished('video=truncated*forever');
  const half = (await call(video)).body.length;
  const seen = await call(video, { headers: { Range: `bytes=${half}-` } });
  expect(seen).toMatchObject({ status: 206, complete: false });
  expect(seen.body.length).toBe(0);
});

test('ranges can be off or wrong, tags weak, absent or changing', async () => {
  const range = { headers: { Range: 'bytes=100-199' } };
  const off = await call((await finished('ranges=off')).video, range);
  expect(off.status).toBe(200);
  expect(off.headers['accept-ranges']).toBeUndefined();
  const wrong = await call((await finished('ranges=wrong')).video, range);
  expect(wrong).toMatchObject({
    status: 206,
    headers: { 'content-range': expect.stringMatching(/^bytes 0-99\//) },
  });
  const weak = await finished('etag=weak');
  const { etag = '' } = (await call(weak.video)).headers;
  expect(etag).toMatch(/^W\//);
  expect((await call(weak.video, { headers: { Range: 'bytes=1-', 'If-Range': etag } })).status).toBe(200);
  expect((await call((await finished('etag=none')).video)).headers.etag).toBeUndefined();
  const changing = await finished('etag=changing');
  const tags = [(await call(changing.video)).headers.etag, (await call(changing.video)).headers.etag];
  expect(tags[0]).not.toBe(tags[1]);
});

test('a whole file can come as a range that nobody asked for', async () => {
  const { taskId, video } = await finished('ranges=whole-206');
  const seen = await call(video);
  const sizeBytes = seen.body.length;
  expect(seen).toMatchObject({
    status: 206,
    complete: true,
    headers: { 'content-range': `bytes 0-${sizeBytes - 1}/${sizeBytes}` },
  });
  expect(sha256(seen.body)).toBe(await simulator.expectedSha256(taskId, 'video'));
});

test('plain bytes can be labelled with an encoding that was never applied', async () => {
  const { taskId, video } = await finished('content-encoding=aws-chunked');
  const seen = await call(video);
  expect(seen.headers['content-encoding']).toBe('aws-chunked');
  expect(sha256(seen.body)).toBe(await simulator.expectedSha256(taskId, 'video'));
});

test.each([
  ['', 404],
  ['young-status=403', 403],
])('a link can be not valid yet when its task has ended: %s', async (more, status) => {
  let now = Date.now();
  const clocked = await startSimulator({ now: () => now });
  try {
    const script = ['shape=O', 'young=3s', more].filter(Boolean).join(', ');
    const taskId = await taskUnder(clocked, script);
    const { data } = jsonOf(await poll(clocked, taskId)) as { data: { video_url: string } };
    expect((await call(data.video_url)).status).toBe(status);
    now += 3000;
    expect((await call(data.video_url)).status).toBe(200);
  } finally {
    await clocked.close();
  }
});

test('a look at the headers uses up no step', async () => {
  const { video } = await finished('video=404');
  expect(await call(video, { method: 'HEAD' })).toMatchObject({
    status: 200,
    headers: { 'content-type': 'video/mp4' },
  });
  expect((await call(video)).status).toBe(404);
});

test('content URLs need the key', async () => {
  const { taskId, video } = await finished('asset-auth=key');
  expect(new URL(video).pathname).toBe(`/v1/videos/${taskId}/content`);
  expect((await call(video)).status).toBe(401);
  expect((await call(video, { headers: { Authorization: 'Bearer sk-wrong' } })).status).toBe(401);
  const seen = await call(video, { headers: key });
  expect(sha256(seen.body)).toBe(await simulator.expectedSha256(taskId, 'video'));
  expect(simulator.ledger().totals.leakedKeys).toBe(0);
});

test.each<[AssetName, (url: string) => [string, Call]]>([
  ['video', (url) => [url, { headers: key }]],
  ['poster', (url) => [url, { headers: { Authorization: 'Bearer something else' } }]],
  ['lastFrame', (url) => [`${url}&token=sk-right`, {}]],
])('a key that comes where it must not is entered: %s', async (asset, how) => {
  const links = await finished('');
  const [url, options] = how(links[asset]);
  await call(url, options);
  expect(simulator.ledger().totals.leakedKeys).toBe(1);
  expect(simulator.ledger().tasks[0]?.assetRequests).toMatchObject([{ asset, leakedKey: true }]);
});

test('the key must not follow a content URL to another host', async () => {
  const { video } = await finished('asset-auth=key, video=redirect:other-port');
  const { headers } = await call(video, { headers: key });
  expect(simulator.ledger().totals.leakedKeys).toBe(0);
  await call(headers.location ?? '', { headers: key });
  expect(simulator.ledger().totals.leakedKeys).toBe(1);
});
