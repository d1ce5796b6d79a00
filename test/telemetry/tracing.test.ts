import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { context, trace, TraceFlags } from '@opentelemetry/api';
import { NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { cliFile, createTestbed, image, type Testbed, type WorkerProcess } from '../support/testbed.js';
import { until } from '../support/until.js';

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { key: string; value: Record<string, unknown> }[];
  readonly events?: readonly { name: string }[];
  readonly links?: readonly { traceId: string; spanId: string }[];
}

/** A collector that takes OTLP over HTTP as JSON. */
async function startCollector() {
  const spans: Span[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as {
        resourceSpans: { scopeSpans: { spans: Span[] }[] }[];
      };
      for (const { scopeSpans } of body.resourceSpans)
        for (const scope of scopeSpans) spans.push(...scope.spans);
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

const stop = async ({ child, exited }: WorkerProcess) => {
  child.kill('SIGTERM');
  expect(await exited).toBe(0);
};
const attribute = (span: Span, key: string) =>
  Object.values(span.attributes.find((one) => one.key === key)?.value ?? {})[0];

let bed: Testbed;
let receiver: Receiver;
let collector: Awaited<ReturnType<typeof startCollector>>;
beforeEach(async () => {
  receiver = await startReceiver();
  collector = await startCollector();
  bed = await createTestbed({
    environment: {
      NOTIFY_SECRET: SECRET,
      NOTIFY_ALLOW_HOSTS: '127.0.0.1',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_BSP_SCHEDULE_DELAY: '50',
    },
  });
});
afterEach(async () => {
  await bed.close();
  await receiver.close();
  await collector.close();
});

test('one worker that runs every stage draws each of them, although the next begins before the last has ended', async () => {
  const worker = bed.spawnWorker();
  const ids = await Promise.all(
    Array.from({ length: 12 }, async (_, i) => (await bed.enqueue(`reel ${i}`)).id),
  );
  for (const id of ids) await bed.reaches(id, 'succeeded');
  await stop(worker);
  for (const id of ids) {
    const spans = collector.spans.filter((span) => span.traceId === id.replaceAll('-', ''));
    expect(spans.map(({ name }) => name).sort()).toEqual(['archive', 'generation', 'poll', 'submit']);
    const poll = spans.find(({ name }) => name === 'poll')!;
    expect(poll.events!.map(({ name }) => name)).toContain('poll');
    expect(poll.events!.at(-1)!.name).toBe('generating → archiving');
  }
});

test('one trace per generation across processes, found by its id, with one span for all its polls', async () => {
  const first = bed.spawnWorker({}, [cliFile, 'worker', '--stages', 'submit,archive']);
  const second = bed.spawnWorker({}, [cliFile, 'worker', '--stages', 'poll,notify']);
  const { id } = await bed.enqueue('traced [sim: duration=1500ms]', { notifyUrl: receiver.url });
  await bed.reaches(id, 'succeeded');
  await until(() => receiver.received.length === 1, 'the notification');
  await stop(first);
  await stop(second);

  const traceId = id.replaceAll('-', '');
  const spans = collector.spans.filter((span) => span.traceId === traceId);
  expect(spans.map(({ name }) => name).sort()).toEqual(['archive', 'generation', 'notify', 'poll', 'submit']);
  const of = (name: string) => spans.find((span) => span.name === name)!;
  const root = of('generation');
  expect(root.parentSpanId).toBeFalsy();
  for (const name of ['archive', 'notify', 'poll', 'submit']) expect(of(name).parentSpanId).toBe(root.spanId);
  const { attempts, createdAt } = await bed.reelhaul.get(id);
  expect(attempts.poll).toBeGreaterThan(0);
  expect(Number(attribute(of('poll'), 'reelhaul.polls'))).toBe(attempts.poll);
  expect(of('poll').events!.filter(({ name }) => name === 'poll').length).toBe(attempts.poll);
  expect(of('submit').events!.map(({ name }) => name)).toEqual([
    'queued → submitting',
    'submitting → generating',
  ]);
  const milliseconds = (nanoseconds: string) => Number(BigInt(nanoseconds) / 1_000_000n);
  expect(milliseconds(root.startTimeUnixNano)).toBe(createdAt);
  expect(
    milliseconds(of('poll').endTimeUnixNano) - milliseconds(of('poll').startTimeUnixNano),
  ).toBeGreaterThan(1000);
  expect(attribute(of('archive'), 'reelhaul.state')).toBe('succeeded');
  expect(collector.spans.filter((span) => span.traceId !== traceId)).toEqual([]);
});

test('a generation that is polled and refused again and again has no more spans than one that is not', async () => {
  const worker = bed.spawnWorker();
  const { id } = await bed.enqueue('slow [sim: submit=429*2, duration=3s]');
  await bed.reaches(id, 'succeeded');
  await stop(worker);
  const { attempts } = await bed.reelhaul.get(id);
  expect(attempts.submit).toBe(3);
  // How many depends on the speed of the machine.
  expect(attempts.poll).toBeGreaterThan(1);
  const spans = collector.spans.filter(({ name }) => name !== 'generation');
  expect(spans.map(({ name }) => name).sort()).toEqual(['archive', 'poll', 'submit']);
  expect(spans.find(({ name }) => name === 'poll')!.events!.length).toBeLessThan(30);
});

test('links to the span in which an app enqueued', async () => {
  const provider = new NodeTracerProvider();
  provider.register();
  const app = await createReelhaul({ config: bed.config });
  const ours = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), traceFlags: TraceFlags.SAMPLED };
  const { id } = await context.with(trace.setSpanContext(context.active(), ours), () =>
    app.enqueue({ prompt: 'from a request', image }),
  );
  await app.close();
  const worker = bed.spawnWorker();
  await bed.reaches(id, 'succeeded');
  await stop(worker);
  const root = collector.spans.find(({ name }) => name === 'generation')!;
  expect(root.traceId).toBe(id.replaceAll('-', ''));
  expect(root.links).toEqual([expect.objectContaining({ traceId: ours.traceId, spanId: ours.spanId })]);
  await provider.shutdown();
  trace.disable();
  context.disable();
});

test('a collector that is away harms nothing, and holds up no stop', async () => {
  const worker = bed.spawnWorker({
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${await freePort()}`,
    LOG_LEVEL: 'info',
  });
  const { id } = await bed.enqueue('unseen');
  await bed.reaches(id, 'succeeded');
  await stop(worker);
  expect(collector.spans).toEqual([]);
});

test('nothing of OpenTelemetry is loaded by library or worker unless it is wanted', () => {
  const root = fileURLToPath(new URL('../../dist', import.meta.url));
  // Every module that is resolved passes this hook, which says the names it sees.
  const hook = `data:text/javascript,${encodeURIComponent(
    "export async function resolve(s, c, n) { if (s.startsWith('@opentelemetry')) process._rawDebug('LOADED ' + s); return n(s, c); }",
  )}`;
  const load = (environment: Record<string, string>) =>
    spawnSync(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { register } from 'node:module';
         register(${JSON.stringify(hook)});
         await import(${JSON.stringify(`file://${root}/src/index.js`)});
         process.argv = ['node', 'reelhaul', 'worker'];
         await import(${JSON.stringify(`file://${root}/src/cli/main.js`)});`,
      ],
      {
        env: {
          PATH: process.env['PATH'],
          REDIS_URL: 'redis://127.0.0.1:9',
          COMETAPI_KEY: 'x-key-0123456789',
          ...environment,
        },
        encoding: 'utf8',
      },
    ).stderr;
  expect(load({})).not.toContain('LOADED');
  expect(
    load({ OTEL_TRACES_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' }),
  ).not.toContain('LOADED');
  expect(load({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' })).toContain('LOADED @opentelemetry/api');
});
