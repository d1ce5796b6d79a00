/** Inputs that the provider could not use: each ends as `input_unusable` or is refused, and none of them is ever paid for. */
import { once } from 'node:events';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import https from 'node:https';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/config.js';
import type { GenerationRequestInput } from '../../src/generation/request.js';
import { parseAllowedHosts } from '../../src/outbound/address-rules.js';
import { guardedAgent, type KeptAgents } from '../../src/outbound/guarded-agent.js';
import { VIDEO_MP4 } from '../../src/simulator/fixtures.js';
import type { RunningWorkers } from '../../workers/main.js';
import { CERTIFICATE, KEY } from '../provider/tls.js';
import * as pictures from '../support/pictures.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

const GOOD = pictures.png();
const MB_17 = 17_000_000;

type Answer = (response: ServerResponse) => void;
const body =
  (bytes: Buffer, headers: Record<string, string> = {}): Answer =>
  (response) =>
    void response
      .writeHead(200, { 'content-length': bytes.length, 'content-type': 'image/png', ...headers })
      .end(bytes);
const status =
  (code: number, headers: Record<string, string> = {}): Answer =>
  (response) =>
    void response.writeHead(code, headers).end(code === 204 ? undefined : GOOD);
const encoded = (bytes: Buffer, encoding: string) => body(bytes, { 'content-encoding': encoding });
const text = (words: string) => body(Buffer.from(words));

/** What the host of the pictures answers, by path. */
const HOSTILE: Readonly<Record<string, Answer>> = {
  ...Object.fromEntries(
    [301, 302, 303, 307, 308].map((code) => [`redirect-${code}`, status(code, { location: '/good' })]),
  ),
  'redirect-inside': status(302, { location: 'https://inside.example/good' }),
  'redirect-to-an-address': status(302, { location: 'http://169.254.169.254/latest/meta-data' }),
  'redirect-to-itself': status(302, { location: '/redirect-to-itself' }),
  'redirect-nowhere': status(302),
  ...Object.fromEntries(
    [204, 206, 304, 400, 401, 403, 404, 405, 410, 418, 429, 451, 500, 502, 503, 504].map((code) => [
      `status-${code}`,
      status(code),
    ]),
  ),
  'retry-later': status(503, { 'retry-after': '0' }),
  silent: () => {},
  'silent-body': (response) =>
    void response.writeHead(200, { 'content-length': '5000' }).write(GOOD.subarray(0, 20)),
  drip(response) {
    response.writeHead(200, { 'content-type': 'image/png' }).write(GOOD.subarray(0, 40));
    const drops = setInterval(() => response.write('x'), 100);
    response.once('close', () => clearInterval(drops));
  },
  hangup: (response) => void response.destroy(),
  'hangup-midway'(response) {
    response
      .writeHead(200, { 'content-length': String(GOOD.length) })
      .write(GOOD.subarray(0, 60), () => response.destroy());
  },
  'length-too-long'(response) {
    response.strictContentLength = false;
    response
      .writeHead(200, { 'content-length': String(GOOD.length + 5) })
      .end(GOOD, () => response.socket?.end());
  },
  'length-too-short': (response) => {
    response.strictContentLength = false;
    response.writeHead(200, { 'content-length': String(GOOD.length - 5) }).end(GOOD);
  },
  'length-of-17-mb': (response) =>
    void response.writeHead(200, { 'content-length': String(MB_17) }).write(GOOD),
  '17-mb': (response) => void response.writeHead(200).end(pictures.largePng(MB_17)),
  endless(response) {
    const piece = Buffer.alloc(65_536);
    const more = () => {
      while (!response.destroyed && response.write(piece));
    };
    response.writeHead(200).write(pictures.largePng(MB_17).subarray(0, 1000));
    response.on('drain', more);
    more();
  },
  nothing: body(Buffer.alloc(0)),
  'one-byte': body(Buffer.from([0x89])),
  'html-as-png': text('<!doctype html><title>Not a picture</title>'),
  'html-after-bom': text('\uFEFF  <html></html>'),
  'login-page': text('<html><form action="/login"></form></html>'),
  json: text('{"error":"not found"}'),
  svg: text('<svg xmlns="http://www.w3.org/2000/svg" width="64" height="36"/>'),
  'svg-with-xml': text('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
  'plain-words': text('a paper boat'),
  pdf: text('%PDF-1.7'),
  gif: body(
    Buffer.from(
      '47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b',
      'hex',
    ),
  ),
  bmp: text('BM0000000000'),
  tiff: body(Buffer.from('49492a0008000000', 'hex')),
  icon: body(Buffer.from('0000010001001010', 'hex')),
  heic: body(Buffer.from('0000001866747970686569630000000068656963', 'hex')),
  avif: body(Buffer.from('0000001866747970617669660000000061766966', 'hex')),
  video: body(VIDEO_MP4),
  script: text('#!/bin/sh\nrm -rf /'),
  zeros: body(Buffer.alloc(5000)),
  'late-png': body(Buffer.concat([Buffer.from('\n'), GOOD])),
  bomb: body(pictures.png(4_000_000_000, 4_000_000_000)),
  'too-wide': body(pictures.png(8001, 20)),
  'too-high': body(pictures.png(20, 8001)),
  'wide-jpeg': body(pictures.jpeg(65_535, 20)),
  'wide-webp': body(pictures.webp(16_777_216, 20)),
  'wide-lossless-webp': body(pictures.losslessWebp(16_384, 20)),
  'wide-lossy-webp': body(pictures.lossyWebp(16_383, 20)),
  'no-size': body(pictures.png(0, 0)),
  'no-header': body(pictures.pngWithoutHeader()),
  'no-pixels': body(pictures.pngWithoutPixels()),
  'no-end': body(pictures.pngWithoutEnd()),
  'half-a-png': body(GOOD.subarray(0, GOOD.length / 2)),
  'half-a-jpeg': body(pictures.jpeg().subarray(0, 14)),
  'half-a-webp': body(pictures.webp().subarray(0, 22)),
  'animated-png': body(pictures.animatedPng()),
  'animated-webp': body(pictures.animatedWebp()),
  gzip: encoded(gzipSync(GOOD), 'gzip'),
  'gzip-without-saying': body(gzipSync(GOOD)),
  'gzip-bomb': encoded(gzipSync(Buffer.alloc(MB_17)), 'gzip'),
  brotli: encoded(brotliCompressSync(GOOD), 'br'),
};

/** Names and where they lead. Each but the first leads to what is not of the public internet, or nowhere. */
const ADDRESSES: Readonly<Record<string, readonly string[]>> = {
  'pictures.example': ['127.0.0.1'],
  'inside.example': ['127.0.0.2'],
  'loopback.example': ['127.0.0.3'],
  'ten.example': ['10.0.0.1'],
  'home.example': ['192.168.1.1'],
  'company.example': ['172.16.0.1'],
  'metadata.example': ['169.254.169.254'],
  'shared.example': ['100.64.0.1'],
  'zero.example': ['0.0.0.0'],
  'multicast.example': ['224.0.0.1'],
  'broadcast.example': ['255.255.255.255'],
  'six.example': ['::1'],
  'mapped.example': ['::ffff:127.0.0.2'],
  'local-six.example': ['fe80::1'],
  'unique-six.example': ['fd00::1'],
  'translated.example': ['64:ff9b::7f00:2'],
  'one-of-two.example': ['192.0.2.1', '127.0.0.2'],
  'nowhere.example': [],
};

/** What stands in the storage, in the folder of the tenant. */
const FILES: Readonly<Record<string, Buffer>> = {
  'page.png': Buffer.from('<html></html>'),
  'drawing.svg': Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'),
  'nothing.png': Buffer.alloc(0),
  'large.png': pictures.largePng(MB_17),
  'bomb.png': pictures.png(100_000, 100_000),
  'half.png': GOOD.subarray(0, 60),
  'animated.webp': pictures.animatedWebp(),
  'video.mp4': VIDEO_MP4,
};

let bed: Testbed;
let host: https.Server;
let inside: Server;
let reachedInside = 0;
let workers: RunningWorkers;
const tries = new Map<string, number>();
const urlOf = (path: string, name = 'pictures.example') =>
  `https://${name}:${(host.address() as AddressInfo).port}/${path}`;

/** Another answer each time it is asked: an address that was checked once must not be asked for again. */
const turns = new Map<string, number>();
function resolve(name: string): Promise<{ address: string; family: number }[]> {
  const turn = turns.get(name) ?? 0;
  turns.set(name, turn + 1);
  if (name === 'rebinding.example')
    return Promise.resolve([{ address: turn === 0 ? '127.0.0.1' : '127.0.0.2', family: 4 }]);
  const found = ADDRESSES[name];
  if (!found) return Promise.reject(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }));
  return Promise.resolve(found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })));
}

/** The rules of a worker, with one address on this machine that counts as public. */
const hosts: Pick<KeptAgents, 'agentFor'> = {
  async agentFor(url, signal) {
    const allowed = parseAllowedHosts(['127.0.0.1']);
    const agent = await guardedAgent(url, { allowed, onlyAllowed: false, setting: '', resolve, signal });
    Object.assign((agent as https.Agent).options, {
      ca: CERTIFICATE,
      checkServerIdentity: () => undefined,
    });
    return agent;
  },
};

beforeAll(async () => {
  host = https.createServer({ key: KEY, cert: CERTIFICATE }, (request, response) => {
    const path = (request.url ?? '').slice(1);
    const asked = (tries.get(path) ?? 0) + 1;
    tries.set(path, asked);
    const late = path === 'late' && asked === 1 ? status(404) : null;
    (late ?? HOSTILE[path] ?? body(GOOD))(response);
  });
  host.listen(0, '127.0.0.1');
  await once(host, 'listening');
  inside = createServer((socket) => {
    reachedInside += 1;
    socket.destroy();
  });
  inside.listen((host.address() as AddressInfo).port, '127.0.0.2');
  await once(inside, 'listening');
  bed = await createTestbed({
    environment: {
      INPUT_URL_CHECK: 'true',
      INPUT_ATTEMPTS: '2',
      INPUT_BACKOFF_MS: '20',
      // Short, since some hosts never answer; whether a slow machine cuts off others as well makes no difference here.
      INPUT_TIMEOUT_MS: '2000',
      PUBLIC_URL: 'http://127.0.0.1:9',
      CALLBACK_SECRET: 'a secret for the tests',
    },
  });
  workers = await bed.work({ inputHosts: hosts });
});
afterAll(async () => {
  await bed.close();
  host.closeAllConnections();
  host.close();
  inside.close();
});

/** Enqueues them all, and gives those that did not end as they should. */
async function othersThanUnusable(images: readonly GenerationRequestInput['image'][]): Promise<unknown[]> {
  const enqueued = await Promise.all(
    images.map(async (image) => ({ image, id: (await bed.reelhaul.enqueue({ prompt: 'x', image })).id })),
  );
  const ended = await Promise.all(
    enqueued.map(async ({ image, id }) => ({ image, ended: await bed.reelhaul.waitFor(id) })),
  );
  return ended
    .filter(
      ({ ended }) =>
        ended.failure?.code !== 'input_unusable' || ended.charge !== 'none' || ended.attempts.submit > 0,
    )
    .map(({ image, ended }) => [image, ended.state, ended.failure]);
}
const submits = () => bed.simulator.ledger().submits.length;

test('nothing that a host can answer beside a picture is paid for', async () => {
  expect(await othersThanUnusable(Object.keys(HOSTILE).map((path) => urlOf(path)))).toEqual([]);
  expect(submits()).toBe(0);
});

test('what is not of the public internet is not reached, whatever its name', async () => {
  const images = Object.keys(ADDRESSES)
    .slice(1)
    .map((name) => urlOf('good', name));
  expect(await othersThanUnusable([...images, urlOf('good', 'unknown.example')])).toEqual([]);
  expect([submits(), reachedInside]).toEqual([0, 0]);
});

test('a file in the storage that is no picture is not paid for', async () => {
  const folder = join(bed.archive, 'library/default');
  await mkdir(join(folder, 'a-folder'), { recursive: true });
  for (const [name, bytes] of Object.entries(FILES)) await writeFile(join(folder, name), bytes);
  await symlink('/etc/hostname', join(folder, 'link.png'));
  await symlink('/etc', join(folder, 'etc'));
  const names = [...Object.keys(FILES), 'a-folder', 'missing.png', 'link.png', 'etc/hostname'];
  const { id } = await bed.reelhaul.addInput(GOOD);
  await rm(join(bed.archive, 'inputs', id));
  const images = names.map((name) => ({ storageKey: `library/default/${name}` }));
  expect(await othersThanUnusable([...images, { input: id }])).toEqual([]);
  expect(submits()).toBe(0);
});

test('a generation without that picture, or one that is forgotten by then, is not waited for', async () => {
  const without = await bed.reelhaul.enqueue({ prompt: 'no frame [sim: last-frame=none]' }, { delayMs: 1 });
  const canceled = await bed.reelhaul.enqueue({ prompt: 'canceled' }, { delayMs: 3_600_000 });
  const forgotten = await bed.reelhaul.enqueue({ prompt: 'forgotten' }, { delayMs: 3_600_000 });
  const ends = othersThanUnusable(
    [without, canceled, forgotten].map(({ id }) => ({ generation: id, asset: 'lastFrame' as const })),
  );
  await bed.reelhaul.cancel(canceled.id);
  await bed.reelhaul.erase(forgotten.id, { evenIfBilled: true });
  expect(await ends).toEqual([]);
  // Its own alone.
  expect(submits()).toBe(1);
});

test.each(
  [
    'http://pictures.example/a.png',
    'ftp://pictures.example/a.png',
    'file:///etc/passwd',
    'javascript:alert(1)',
    'https://user:password@pictures.example/a.png',
    'https://127.0.0.1/a.png',
    'https://2130706433/a.png',
    'https://0x7f.1/a.png',
    'https://[::1]/a.png',
    'https://[::ffff:10.0.0.1]/a.png',
    'https://localhost/a.png',
    'https://redis/a.png',
    'https://',
    '//pictures.example/a.png',
    ' ',
    `https://pictures.example/${'a'.repeat(2048)}`,
  ].map((image) => [image.slice(0, 40), image]),
)('%s is refused at once', async (_, image) => {
  await expect(bed.reelhaul.enqueue({ prompt: 'x', image })).rejects.toThrow('request.image: expected');
});

/** A slow machine cuts off nothing then; and one submit at a time. */
async function workPatiently(): Promise<void> {
  await workers.close();
  const config = readConfig({ ...bed.environment, INPUT_TIMEOUT_MS: '60000', SUBMIT_CONCURRENCY: '1' });
  workers = await bed.work({ inputHosts: hosts, config });
}

test('a host that never answers holds up nothing but what starts from it', async () => {
  await workPatiently();
  const silent = await Promise.all(
    Array.from({ length: 10 }, () => bed.reelhaul.enqueue({ prompt: 'x', image: urlOf('silent') })),
  );
  const { id } = await bed.reelhaul.enqueue({ prompt: 'x', image: urlOf('good') });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded' });
  for (const one of silent) {
    expect(await bed.reelhaul.get(one.id)).toMatchObject({ state: 'queued' });
    await bed.reelhaul.cancel(one.id);
  }
});

test('a good picture is paid for once, also one that is not there at first, under a name that moves', async () => {
  await workPatiently();
  const before = submits();
  const images = [urlOf('good'), urlOf('late'), urlOf('good', 'rebinding.example')];
  const enqueued = await Promise.all(images.map((image) => bed.reelhaul.enqueue({ prompt: 'x', image })));
  for (const { id } of enqueued)
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { submit: 1 } });
  expect(submits()).toBe(before + 3);
  expect([tries.get('late'), reachedInside]).toEqual([2, 0]);
});
