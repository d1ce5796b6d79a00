/**
 * What may stand in a log. Secrets never: API key, quota key, callback secret and tokens, notification secrets, API
 * tokens, passwords, signatures of links. Nor what apps and the provider say in private: prompts, and addresses of
 * videos with what signs them. Ids, states, codes and keys of storage may, and are what one looks for.
 */
import { createHash } from 'node:crypto';
import { afterEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { POSTER_PNG } from '../../src/simulator/fixtures.js';
import { createCallbackToken } from '../../src/provider/callback.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { cliFile, createTestbed, realRedis, type Testbed, type WorkerProcess } from '../support/testbed.js';
import { until } from '../support/until.js';

const PROMPT = 'a very private prompt about a paper boat';
const REDIS_PASSWORD = 'redis pass/word+0123';
const SECRETS = {
  COMETAPI_KEY: 'comet-key-0123456789abcdef',
  COMETAPI_QUOTA_KEY: 'quota-key-0123456789abcdef',
  CALLBACK_SECRET: 'callback-secret-0123456789',
  NOTIFY_SECRET: SECRET,
} as const;
const TOKEN = 'api-token-0123456789abcdef';

let bed: Testbed;
let receiver: Receiver;
let redis: LaunchedRedis;
afterEach(async () => {
  await bed.close();
  await receiver.close();
  await redis.stop();
});

(realRedis ? test : test.skip)(
  'no secret, prompt or signed address gets into any output of any process, at the level trace',
  async () => {
    redis = await launchRedis();
    const setter = new Redis(redis.url);
    await setter.config('SET', 'requirepass', REDIS_PASSWORD);
    setter.disconnect();
    receiver = await startReceiver();
    const port = await freePort();
    const publicUrl = `http://127.0.0.1:${port}`;
    const url = redis.url.replace('redis://', `redis://:${encodeURIComponent(REDIS_PASSWORD)}@`);
    bed = await createTestbed({
      redisUrl: url,
      simulator: { apiKey: SECRETS.COMETAPI_KEY, callbackDelayMs: 0 },
      environment: {
        ...SECRETS,
        API_TOKENS: `${TOKEN},${TOKEN}-ro::ro`,
        PUBLIC_URL: publicUrl,
        NOTIFY_ALLOW_HOSTS: '127.0.0.1',
        LOG_LEVEL: 'trace',
      },
    });
    const quota = { COMETAPI_QUOTA_URL: bed.simulator.url };
    const processes: WorkerProcess[] = [
      bed.spawnWorker({ PORT: String(port) }, [cliFile, 'serve']),
      bed.spawnWorker({ WORKER_PORT: String(await freePort()) }),
    ];
    await until(() => processes[0]!.output().includes('server started'), 'the server');

    const finished: string[] = [];
    const links: string[] = [];
    for (const script of [
      'callback=once',
      'submit=502',
      'submit=rejected*forever',
      'poll=401',
      'video=503',
      'video=404*forever',
    ]) {
      const answer = await fetch(`${publicUrl}/v1/generations`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify({
          request: {
            prompt: `${PROMPT} [sim: ${script}]`,
            image: 'https://example.com/still.png?sig=image-signature',
            last_image: `data:image/png;base64,${POSTER_PNG.toString('base64')}`,
          },
          notifyUrl: `${receiver.url}?token=notify-url-token`,
        }),
      });
      const { id } = (await answer.json()) as { id: string };
      finished.push(id);
    }
    const [first = ''] = finished;
    await bed.reaches(first, 'succeeded');
    await bed.reaches(finished[1]!, 'unconfirmed');
    for (const id of finished.slice(2)) await bed.reelhaul.waitFor(id);
    await until(() => receiver.received.length >= 5, 'the notifications');
    // The addresses of the provider's files, which are as good as the files.
    const bodies = (await Promise.all(finished.map((id) => bed.reelhaul.answers(id))))
      .flat()
      .map(({ body }) => body);
    const addresses = bodies.flatMap(
      (body) => body.match(/https?:[^"\\]+\.(?:mp4|png|jpg|webm)[^"\\]*/g) ?? [],
    );
    expect(addresses.length).toBeGreaterThan(0);
    // A link to a file, which works once, wrong ones of every kind, and a wrong token.
    links.push(await bed.reelhaul.getAssetUrl(first, 'video'));
    expect((await fetch(links[0]!)).status).toBe(200);
    expect((await fetch(`${links[0]!}x`)).status).toBeGreaterThan(399);
    const inputTokens = bed.simulator
      .ledger()
      .submits.flatMap(({ inputs }) =>
        inputs.flatMap(({ url: address }) =>
          address.startsWith(publicUrl) ? [address.split('/').at(-1)!] : [],
        ),
      );
    expect(inputTokens.length).toBeGreaterThan(0);
    for (const token of [...inputTokens, `${inputTokens[0]}x`])
      await fetch(`${publicUrl}/inputs/${token}`, { headers: { range: 'bytes=0-9' } });
    const callbackTokens = finished.map((id) => createCallbackToken(SECRETS.CALLBACK_SECRET, id));
    await fetch(`${publicUrl}/callbacks/runway/${first}/${callbackTokens[0]}`, {
      method: 'POST',
      body: '{"task_id":"stray"}',
    });
    await fetch(`${publicUrl}/v1/generations`, {
      headers: { authorization: 'Bearer wrong-token-0123456789' },
    });
    processes.push(bed.spawnWorker(quota, [cliFile, 'doctor', '--json']));
    processes.push(bed.spawnWorker(quota, [cliFile, 'doctor']));
    processes.push(bed.spawnWorker({ REDIS_URL: url.replace(/:\d+$/, ':9') }, [cliFile, 'worker']));
    for (const { exited } of processes.slice(2)) await exited;
    for (const { child, exited } of processes.slice(0, 2)) {
      child.kill('SIGTERM');
      expect(await exited).toBe(0);
    }

    const output = processes.map((one) => one.output()).join('\n');
    const notificationSignatures = receiver.received.map(({ headers }) =>
      String(headers['webhook-signature']).replace(/^v1,/, ''),
    );
    const hidden = {
      ...SECRETS,
      'the API token': TOKEN,
      'a wrong API token': 'wrong-token-0123456789',
      'the password of Redis': REDIS_PASSWORD,
      'the same, encoded': encodeURIComponent(REDIS_PASSWORD),
      'the digest of the API token': createHash('sha256').update(TOKEN).digest('hex'),
      'the signature of a link': new URL(links[0]!).searchParams.get('signature')!,
      'the signature of an image': 'image-signature',
      'the token in notifyUrl': 'notify-url-token',
      'the prompt': PROMPT,
    };
    for (const [what, secret] of Object.entries(hidden))
      expect([what, output.includes(secret)]).toEqual([what, false]);
    for (const secret of [...callbackTokens, ...inputTokens, ...notificationSignatures])
      expect(output).not.toContain(secret);
    for (const address of addresses) expect(output).not.toContain(address);

    // And what is looked for is there: one line per transition, with the ids.
    for (const id of finished) expect(output).toContain(id);
    const moves = output
      .split('\n')
      .flatMap((line) => {
        try {
          return [
            JSON.parse(line) as {
              msg?: string;
              generationId?: string;
              from?: string;
              to?: string;
              taskId?: string;
            },
          ];
        } catch {
          return [];
        }
      })
      .filter(({ msg, generationId }) => msg === 'generation moved' && generationId === first);
    expect(moves.map(({ from, to }) => `${from} → ${to}`)).toEqual([
      'queued → submitting',
      'submitting → generating',
      'generating → archiving',
      'archiving → succeeded',
    ]);
    expect(moves.at(-1)?.taskId).toBe((await bed.reelhaul.get(first)).taskId);
  },
);
