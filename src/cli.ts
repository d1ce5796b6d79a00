#!/usr/bin/env node
/**
 * The command line: the same words as the library, and the processes that run for long. People get tables and plain
 * messages, programs `--json`. Exit codes: 0 done, 1 not done (the message says why), 2 the command line was wrong.
 */
import { createReadStream } from 'node:fs';
import { createInterface as createLines } from 'node:readline';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Logger } from 'pino';
import { readConfig, secretsIn, type Config } from './config.js';
import type { Finding } from './doctor/finding.js';
import { ConfigError, InvalidInputError, ReelhaulError } from './errors.js';
import type { GenerationEvent } from './generation/events.js';
import type { EnqueueOptionsInput } from './generation/options.js';
import type { Notification } from './generation/outbox.js';
import type { Generation } from './generation/record.js';
import type { GenerationRequestInput } from './generation/request.js';
import { isTerminal, STAGES, STATES, type Stage, type State } from './generation/states.js';
import { describeLimits, describeSpend } from './limits/describe.js';
import { createReelhaul } from './producer.js';
import type { EnqueueItem, Reelhaul } from './reelhaul.js';
import type { Hub } from './hub.js';
import { wantsTraces } from './telemetry/active-trace.js';
import { createLogger } from './telemetry/logger.js';
import type { Metrics } from './telemetry/metrics.js';
import { packageVersion } from './version.js';
import type { Vitals } from './work.js';
import type { RunningWorkers } from '../workers/main.js';

// The reader of a pipe went away (`| head`): there is nobody to tell anything any more.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const print = (text: string) => void process.stdout.write(`${text}\n`);
const complain = (text: string) => void process.stderr.write(`${text}\n`);

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text))
    throw new InvalidArgumentError(`expected a whole number, got ${JSON.stringify(text)}`);
  return Number(text);
}

function jsonObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {
    // Said below, with what was expected.
  }
  throw new InvalidArgumentError(`expected a JSON object, got ${text.slice(0, 80)}`);
}

function stageList(text: string): Stage[] {
  const names = text.split(',').map((name) => name.trim());
  const wrong = names.filter((name) => !(STAGES as readonly string[]).includes(name));
  if (wrong.length > 0)
    throw new InvalidArgumentError(`expected some of ${STAGES.join(',')}, got ${wrong.join(',')}`);
  return names as Stage[];
}

function loggerFor(config: Config, onAlarm: (alarm: string) => void = () => {}): Logger {
  const secrets = secretsIn(config, process.env);
  return createLogger({ level: config.LOG_LEVEL, secrets, isTerminal: process.stdout.isTTY, onAlarm });
}

async function withLibrary(work: (reelhaul: Reelhaul) => Promise<void>): Promise<void> {
  const reelhaul = await createReelhaul({ config: readConfig(process.env) });
  try {
    await work(reelhaul);
  } finally {
    await reelhaul.close();
  }
}

/** Resolves at the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. */
function askedToStop(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let asked = false;
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => {
        if (asked) process.exit(1);
        asked = true;
        resolve(name);
      });
    }
  });
}

/** Texts of apps and of the provider may hold anything: nothing of it may steer a terminal. */
function plain(text: string, maxCharacters = 1000): string {
  const line = text.replaceAll(/\s+/g, ' ').replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '\ufffd');
  return Array.from(line).slice(0, maxCharacters).join('');
}

function show(generation: Generation, json: boolean): void {
  if (json) return print(JSON.stringify(generation));
  const { id, state, failure, assets, taskId, charge, warnings } = generation;
  print(`${id}  ${state}${taskId === null ? '' : `  task ${taskId}`}  charge: ${charge}`);
  if (failure) print(`  failed in ${failure.stage}: ${plain(failure.message)} [${failure.code}]`);
  if (assets)
    print(`  video  ${assets.video.key}  ${assets.video.sizeBytes} bytes  sha256 ${assets.video.sha256}`);
  for (const warning of warnings) print(`  warning: ${plain(warning.message)} [${warning.code}]`);
}

function showList(generations: readonly Generation[]): void {
  if (generations.length === 0) return print('none');
  for (const { id, state, createdAt, attempts, request } of generations) {
    const prompt = plain(request.prompt, 50);
    print(
      `${id}  ${state.padEnd(11)}  ${new Date(createdAt).toISOString()}  ${attempts.poll} polls  ${prompt}`,
    );
  }
}

function showEvent(event: GenerationEvent, json: boolean): void {
  if (json) return print(JSON.stringify(event));
  const { at, generationId, to, type, text } = event;
  print(`${new Date(at).toISOString()}  ${generationId}  ${to ?? `${type} ${plain(text ?? '')}`}`);
}

function showNotifications(notifications: readonly Notification[]): void {
  if (notifications.length === 0) return print('none');
  for (const { id, type, attempts, dead, lastError, url } of notifications) {
    print(`${id}  ${type}  ${dead ? 'dead' : 'due'} after ${attempts} tries  ${url}`);
    if (lastError !== null) print(`  ${lastError}`);
  }
}

/** Settings that cannot be read are findings as well: the doctor is who one asks then. They are null in that case. */
async function consultDoctor(): Promise<{
  findings: readonly Finding[];
  settings: readonly string[] | null;
}> {
  const [{ examine }, { describeConfig, examineUnreadable }] = await Promise.all([
    import('./doctor/examine.js'),
    import('./doctor/settings.js'),
  ]);
  let config: Config;
  try {
    config = readConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { findings: examineUnreadable(error), settings: null };
  }
  const findings = await examine(config, loggerFor({ ...config, LOG_LEVEL: 'silent' }));
  return { findings, settings: describeConfig(config, readConfig({})) };
}

interface EnqueueFlags {
  prompt?: string;
  image?: string;
  lastImage?: string;
  model?: string;
  ratio?: string;
  style?: string;
  seconds?: number;
  request?: Record<string, unknown>;
  key?: string;
  tenant?: string;
  priority?: number;
  delayMs?: number;
  deadlineMs?: number;
  metadata?: Record<string, unknown>;
  onUnconfirmed?: string;
  notifyUrl?: string;
  notifyOn?: string;
  wait?: boolean;
  json?: boolean;
  file?: string;
}

const withoutUndefined = (object: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

function orderFrom(flags: EnqueueFlags): { request: GenerationRequestInput; options: EnqueueOptionsInput } {
  const options = flags.seconds === undefined ? undefined : { seconds: flags.seconds };
  const fromFlags = withoutUndefined({
    prompt: flags.prompt,
    image: flags.image,
    last_image: flags.lastImage,
    model: flags.model,
    ratio: flags.ratio,
    style: flags.style,
    options,
  });
  const wanted = withoutUndefined({
    idempotencyKey: flags.key,
    tenant: flags.tenant,
    priority: flags.priority,
    delayMs: flags.delayMs,
    deadlineMs: flags.deadlineMs,
    metadata: flags.metadata,
    onUnconfirmed: flags.onUnconfirmed,
    notifyUrl: flags.notifyUrl,
    notifyOn: flags.notifyOn,
  });
  // Checked in full by `enqueue`; here they are only put together.
  return {
    request: { ...flags.request, ...fromFlags } as GenerationRequestInput,
    options: wanted,
  };
}

/** So many lines are read before they are stored; the progress moves by as much. */
const FILE_CHUNK = 500;

function itemFrom(line: string): EnqueueItem {
  const value = jsonObject(line);
  // Checked in full by `enqueueMany`; here only the two forms are told apart.
  return ('request' in value ? value : { request: value }) as EnqueueItem;
}

/** Each line has its own result: one that is refused is named with its number and does not hinder the others. */
async function enqueueFile(reelhaul: Reelhaul, path: string, json: boolean): Promise<void> {
  const input = path === '-' ? process.stdin : createReadStream(path);
  let chunk: { number: number; item: EnqueueItem }[] = [];
  const counts = { stored: 0, known: 0, refused: 0 };
  const refuse = (number: number, reason: string) => {
    counts.refused += 1;
    complain(`line ${number}: ${reason}`);
  };
  const store = async () => {
    const results = await reelhaul.enqueueMany(chunk.map(({ item }) => item));
    for (const [i, result] of results.entries()) {
      if (!result.ok) refuse(chunk[i]!.number, result.error.message);
      else {
        counts[result.replayed ? 'known' : 'stored'] += 1;
        if (json) print(JSON.stringify(result.generation));
      }
    }
    chunk = [];
    if (process.stderr.isTTY)
      process.stderr.write(`\r${counts.stored} stored, ${counts.known} known, ${counts.refused} refused`);
  };
  let number = 0;
  for await (const line of createLines({ input, crlfDelay: Infinity })) {
    number += 1;
    if (line.trim() === '') continue;
    try {
      chunk.push({ number, item: itemFrom(line) });
    } catch (error) {
      refuse(number, error instanceof Error ? error.message : String(error));
    }
    if (chunk.length >= FILE_CHUNK) await store();
  }
  await store();
  if (process.stderr.isTTY) process.stderr.write('\n');
  if (!json) print(`${counts.stored} stored, ${counts.known} known already, ${counts.refused} refused`);
  if (counts.refused > 0) process.exitCode = 1;
}

const program = new Command('reelhaul')
  .description(
    'Hauls AI video generations home: submitted once, followed, saved in your own storage, verified.',
  )
  .version(packageVersion())
  .exitOverride()
  .showHelpAfterError('(--help shows the usage)');

program
  .command('enqueue')
  .description('record a wanted video and queue its submit')
  .option('--prompt <text>', 'what to generate')
  .option('--image <url>', 'source image, https')
  .option('--last-image <url>', 'end frame, https')
  .option('--model <name>', 'default gen4')
  .option('--ratio <w:h>', 'default 1280:720')
  .option('--style <name>', 'such as cinematic')
  .option('--seconds <5|10>', 'length of the video', wholeNumber)
  .option('--request <json>', 'the whole request as JSON; the flags above override its fields', jsonObject)
  .option(
    '--file <path>',
    'many at once: a line of JSON each, { request, …options } or a bare request; - for stdin',
  )
  .option('--key <text>', 'idempotency key')
  .option('--tenant <name>', 'default "default"')
  .option('--priority <n>', '1 is first', wholeNumber)
  .option('--delay-ms <ms>', 'submit not before', wholeNumber)
  .option('--deadline-ms <ms>', 'patience, from now', wholeNumber)
  .option('--metadata <json>', 'a JSON object to get back', jsonObject)
  .addOption(new Option('--on-unconfirmed <policy>').choices(['hold', 'resubmit', 'fail']))
  .option('--notify-url <url>', 'where a signed POST tells that it is over')
  .addOption(new Option('--notify-on <what>', 'default end').choices(['end', 'progress']))
  .option('--wait', 'wait until it is over; exit code 1 unless it succeeded')
  .option('--json', 'print the generation as one line of JSON')
  .addHelpText(
    'after',
    '\nExample:\n  reelhaul enqueue --prompt "a paper boat" --image https://example.com/boat.png --wait',
  )
  .action((flags: EnqueueFlags) =>
    withLibrary(async (reelhaul) => {
      if (flags.file !== undefined) return enqueueFile(reelhaul, flags.file, flags.json === true);
      const { request, options } = orderFrom(flags);
      let generation = await reelhaul.enqueue(request, options);
      if (flags.wait) generation = await reelhaul.waitFor(generation.id);
      show(generation, flags.json === true);
      if (flags.wait && generation.state !== 'succeeded') process.exitCode = 1;
    }),
  );

program
  .command('get <id>')
  .description('show one generation')
  .option('--answers', 'what the provider said that decided something')
  .option('--json', 'one line of JSON')
  .action((id: string, flags: { json?: boolean; answers?: boolean }) =>
    withLibrary(async (reelhaul) => {
      if (flags.answers) {
        for (const answer of await reelhaul.answers(id)) print(JSON.stringify(answer));
        return;
      }
      show(await reelhaul.get(id), flags.json === true);
    }),
  );

program
  .command('list')
  .description('show generations, newest first')
  .addOption(
    new Option('--state <state>', '"unconfirmed" is the inbox that wants a decision').choices(STATES),
  )
  .option('--limit <n>', 'at most 500', wholeNumber, 50)
  .option('--cursor <cursor>', 'where the page before ended')
  .option('--json', 'one generation per line')
  .action((flags: { state?: State; limit: number; cursor?: string; json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const { json, ...query } = flags;
      const { generations, cursor } = await reelhaul.list(query);
      if (json) for (const generation of generations) print(JSON.stringify(generation));
      else showList(generations);
      if (cursor !== null) complain(`more: --cursor ${cursor}`);
    }),
  );

program
  .command('waitFor <id>')
  .description('wait until a generation is over; exit code 1 unless it succeeded')
  .option('--timeout-ms <ms>', 'default: no limit', wholeNumber)
  .option('--json', 'one line of JSON')
  .action((id: string, { timeoutMs, json }: { timeoutMs?: number; json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const generation = await reelhaul.waitFor(id, timeoutMs === undefined ? {} : { timeoutMs });
      show(generation, json === true);
      if (generation.state !== 'succeeded') process.exitCode = 1;
    }),
  );

program
  .command('watch [id]')
  .description(
    'what happens, as it happens, to one generation or to all; until Ctrl-C, or the end of that one',
  )
  .option('--tenant <name>', 'only of this tenant')
  .option('--cursor <cursor>', 'begin behind this event')
  .option('--json', 'an event per line')
  .action((id: string | undefined, flags: { tenant?: string; cursor?: string; json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const stop = new AbortController();
      void askedToStop().then(() => stop.abort());
      const { json, ...from } = flags;
      const filter = { ...from, ...(id === undefined ? {} : { generationId: id }), signal: stop.signal };
      const events = reelhaul.events(filter)[Symbol.asyncIterator]();
      // Listening begins before the look, so that no end falls between the two.
      let next = events.next();
      if (id !== undefined) {
        const generation = await reelhaul.get(id);
        if (!json) show(generation, false);
        if (isTerminal(generation.state)) stop.abort();
      }
      for (let event = await next; !event.done; event = await next) {
        showEvent(event.value, json === true);
        if (id !== undefined && event.value.to !== null && isTerminal(event.value.to)) stop.abort();
        next = events.next();
      }
    }),
  );

program
  .command('cancel <id>')
  .description('stop a generation; the provider may bill its task all the same')
  .option('--json', 'one line of JSON')
  .action((id: string, { json }: { json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const { generation, mayBeBilled } = await reelhaul.cancel(id);
      show(generation, json === true);
      if (mayBeBilled) complain('Its task may be billed all the same: the provider knows no cancel.');
    }),
  );

program
  .command('retry <id>')
  .description('start again at the stage that failed; poll and archive never bill')
  .option('--allow-rebill', 'accept that it may be billed a second time')
  .option('--json', 'one line of JSON')
  .action((id: string, { allowRebill, json }: { allowRebill?: boolean; json?: boolean }) =>
    withLibrary(async (reelhaul) =>
      show(await reelhaul.retry(id, { allowRebill: allowRebill === true }), json === true),
    ),
  );

program
  .command('decide <id>')
  .description('settle an unconfirmed generation')
  .option('--adopt <taskId>', 'this is its task: follow it')
  .option('--resubmit', 'submit again; it may be billed twice')
  .option('--give-up', 'fail it; a late callback still revives it')
  .option('--json', 'one line of JSON')
  .action(
    (
      id: string,
      flags: { adopt?: string; resubmit?: boolean; giveUp?: boolean; json?: boolean },
      command: Command,
    ) => {
      const chosen = [flags.adopt !== undefined, flags.resubmit === true, flags.giveUp === true].filter(
        Boolean,
      );
      if (chosen.length !== 1)
        command.error('error: expected one of --adopt <taskId>, --resubmit, --give-up', { exitCode: 2 });
      const decision =
        flags.adopt !== undefined
          ? { adopt: flags.adopt }
          : flags.resubmit
            ? { resubmit: true as const }
            : { giveUp: true as const };
      return withLibrary(async (reelhaul) => show(await reelhaul.decide(id, decision), flags.json === true));
    },
  );

program
  .command('limits')
  .description('caps, rates, and what is held against key and provider')
  .option('--json', 'one line of JSON')
  .action(({ json }: { json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const limits = await reelhaul.limits();
      print(json ? JSON.stringify(limits) : describeLimits(limits));
    }),
  );

program
  .command('resume')
  .description('key and provider are well again: nobody waits for a probe, a 429 or the next budget')
  .action(() =>
    withLibrary(async (reelhaul) => {
      await reelhaul.resume();
      print(describeLimits(await reelhaul.limits()));
    }),
  );

program
  .command('spend')
  .description('what was spent on a day, by tenant')
  .option('--day <YYYY-MM-DD>', 'UTC; default: today')
  .option('--tenant <name>', 'only of this tenant')
  .option('--json', 'one line of JSON')
  .action(({ json, ...query }: { day?: string; tenant?: string; json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const spend = await reelhaul.spend(query);
      print(json ? JSON.stringify(spend) : describeSpend(spend));
    }),
  );

program
  .command('notifications [id]')
  .description('what the app of a generation was not told yet; without an id, what was given up')
  .option('--limit <n>', 'without an id: generations, at most 500', wholeNumber, 50)
  .option('--cursor <cursor>', 'without an id: where the page before ended')
  .option('--json', 'one notification per line')
  .action((id: string | undefined, flags: { limit: number; cursor?: string; json?: boolean }) =>
    withLibrary(async (reelhaul) => {
      const { json, ...query } = flags;
      const page =
        id === undefined
          ? await reelhaul.deadNotifications(query)
          : { notifications: await reelhaul.notifications(id), cursor: null };
      if (json) for (const one of page.notifications) print(JSON.stringify(one));
      else showNotifications(page.notifications);
      if (page.cursor !== null) complain(`more: --cursor ${page.cursor}`);
    }),
  );

program
  .command('retryNotification <id>')
  .description('send again what was given up telling about a generation')
  .action((id: string) =>
    withLibrary(async (reelhaul) => {
      const again = await reelhaul.retryNotification(id);
      if (again > 0) return print(`${again} will be sent again`);
      complain(`Generation ${id} has no notification that was given up.`);
      process.exitCode = 1;
    }),
  );

program
  .command('doctor')
  .description('look at everything a worker stands on, and say what to do; exit code 1 for an error')
  .option('--json', 'one finding per line')
  .action(async ({ json }: { json?: boolean }) => {
    const { findings, settings } = await consultDoctor();
    if (json) {
      for (const finding of findings) print(JSON.stringify(finding));
      if (settings !== null)
        print(JSON.stringify({ level: 'ok', about: 'settings', message: settings.join(' ') }));
    } else {
      for (const { level, about, message } of findings) print(`${level.padEnd(7)}  ${about}: ${message}`);
      for (const line of settings ?? []) print(`setting  ${line}`);
    }
    const code = findings.some(({ level }) => level === 'error') ? 1 : 0;
    // What hangs was said above; it shall not hold up the end as well.
    process.stdout.write('', () => process.exit(code));
  });

program
  .command('worker')
  .description('run the stages until SIGTERM; any number of these share the work')
  .option('--stages <names>', `some of ${STAGES.join(',')}; default all`, stageList)
  .option('--serve', 'also answer the HTTP API and the callbacks of the provider on PORT')
  .action(async ({ stages, serve }: { stages?: Stage[]; serve?: boolean }) => {
    const config = readConfig(process.env);
    const [{ startWorkers }, { createMetrics }, { createOps, startOpsServer }] = await Promise.all([
      import('../workers/main.js'),
      import('./telemetry/metrics.js'),
      import('./http/ops.js'),
    ]);
    const metrics = createMetrics();
    const log = loggerFor(config, (alarm) => metrics.alarmed(alarm));
    const stopped = askedToStop();
    let workers: RunningWorkers | null = null;
    const vitals = () => workers?.vitals() ?? null;
    // Listening first: a port that is taken is found before any job is.
    const listeners = await openWatch(metrics);
    let server = serve ? await serveHttp(config, log, metrics, (hub) => listeners.watch(hub), vitals) : null;
    const watch = async (hub: Hub) => {
      listeners.watch(hub);
      if (!serve && config.WORKER_PORT > 0)
        server = await startOpsServer(createOps(hub, metrics, vitals), config.WORKER_PORT, log);
    };
    try {
      workers = await startWorkers({ config, log, watch, ...(stages ? { stages } : {}) });
      log.info({ signal: await stopped }, 'stopping');
      await workers.close();
    } finally {
      await server?.close();
      await listeners.close();
    }
  });

program
  .command('serve')
  .description('answer the HTTP API and the callbacks of the provider on PORT until SIGTERM')
  .action(async () => {
    const config = readConfig(process.env);
    const { createMetrics } = await import('./telemetry/metrics.js');
    const metrics = createMetrics();
    const log = loggerFor(config, (alarm) => metrics.alarmed(alarm));
    const stopped = askedToStop();
    const listeners = await openWatch(metrics);
    const server = await serveHttp(
      config,
      log,
      metrics,
      (hub) => listeners.watch(hub),
      () => [],
    );
    log.info({ signal: await stopped }, 'stopping');
    await server.close();
    await listeners.close();
  });

/** Whoever listens to what this process does: metrics, and traces where they are wanted. */
async function openWatch(metrics: Metrics): Promise<{ watch(hub: Hub): void; close(): Promise<void> }> {
  const tracing = wantsTraces(process.env)
    ? (await import('./telemetry/tracing.js')).createTracing(process.env)
    : null;
  return {
    watch(hub) {
      metrics.watch(hub);
      tracing?.watch(hub);
    },
    close: async () => tracing?.close(),
  };
}

async function serveHttp(
  config: Config,
  log: Logger,
  metrics: Metrics,
  watch: (hub: Hub) => void,
  vitals: () => readonly Vitals[] | null,
): Promise<{ close(): Promise<void> }> {
  const [{ createHub }, { checkShards }, { connectRedis, checkRedis }, { startServer }, { createOps }] =
    await Promise.all([
      import('./hub.js'),
      import('./shards.js'),
      import('./redis.js'),
      import('./http/server.js'),
      import('./http/ops.js'),
    ]);
  const redis = await connectRedis(config, 'producer', log);
  try {
    await checkRedis(redis);
    await checkShards(redis, config);
    const hub = createHub({ config, log, redis });
    watch(hub);
    const server = await startServer(hub, createOps(hub, metrics, vitals));
    return {
      async close() {
        await server.close();
        await hub.queues.close();
        redis.disconnect();
      },
    };
  } catch (error) {
    redis.disconnect();
    throw error;
  }
}

interface SimulateFlags {
  host: string;
  port: number;
  seed: number;
  durationMs?: number;
  rates?: string;
  script?: string;
  callbackHosts?: string;
}

program
  .command('simulate')
  .description('run the provider simulator: the same answers as the real API, no bills')
  .option('--host <address>', 'where to listen; only this machine unless told otherwise', '127.0.0.1')
  .option('--port <port>', 'default: any free one', wholeNumber, 0)
  .option('--seed <n>', 'the same seed gives the same faults', wholeNumber, 1)
  .option('--duration-ms <ms>', 'how long a task takes', wholeNumber)
  .option('--rates <list>', 'random faults, such as submit-504-after=0.05,poll-500=0.1')
  .option('--script <text>', 'directives for every generation, as in a prompt')
  .option(
    '--callback-hosts <names>',
    'hosts it may call back beside this machine, separated by commas; * for all',
  )
  .action(async (flags: SimulateFlags) => {
    const stopped = askedToStop();
    const { startSimulator } = await import('./provider/simulator/simulator.js');
    const { parseRates } = await import('./provider/simulator/faults.js');
    const simulator = await startSimulator({
      host: flags.host,
      port: flags.port,
      seed: flags.seed,
      ...(flags.script === undefined ? {} : { script: flags.script }),
      ...(flags.callbackHosts === undefined ? {} : { callbackHosts: flags.callbackHosts.split(',') }),
      ...(flags.durationMs === undefined ? {} : { taskDurationMs: flags.durationMs }),
      ...(flags.rates === undefined ? {} : { rates: parseRates(flags.rates) }),
    });
    print(`The simulator listens at ${simulator.url}; its ledger is at ${simulator.url}/ledger`);
    await stopped;
    await simulator.close();
  });

program
  .command('demo')
  .description('watch three generations go all the way, on parts that it starts and stops itself')
  .option('--live', 'one generation against the real provider instead: it is billed')
  .option('--prompt <text>', 'with --live: what to generate')
  .option('--image <url>', 'with --live: source image, https')
  .option('--yes', 'with --live: do not ask')
  .action(
    async (flags: { live?: boolean; prompt?: string; image?: string; yes?: boolean }, command: Command) => {
      if (flags.live && flags.prompt === undefined)
        command.error('error: --live needs --prompt <text>', { exitCode: 2 });
      if (flags.live && !(await billAccepted(flags.yes === true))) {
        complain('Nothing was submitted.');
        process.exitCode = 1;
        return;
      }
      const { runDemo } = await import('./demo/demo.js');
      const interrupted = new AbortController();
      void askedToStop().then(() => interrupted.abort());
      try {
        const ok = await runDemo({
          live: flags.live ? { prompt: flags.prompt!, image: flags.image } : null,
          write: (text) => void process.stdout.write(text),
          isTerminal: process.stdout.isTTY,
          cliFile: fileURLToPath(import.meta.url),
          environment: process.env,
          signal: interrupted.signal,
        });
        if (!ok) process.exitCode = 1;
      } catch (error) {
        if (!interrupted.signal.aborted) throw error;
        complain('Interrupted; everything was stopped.');
        process.exitCode = 130;
      }
    },
  );

async function billAccepted(yes: boolean): Promise<boolean> {
  const config = readConfig(process.env);
  if (config.COMETAPI_KEY === '') {
    throw new InvalidInputError('A live run cannot start', [
      { path: 'COMETAPI_KEY', message: 'expected the API key of the provider, got nothing' },
    ]);
  }
  complain(`This submits one generation to ${config.COMETAPI_BASE_URL}. It will be billed to your account.`);
  if (yes) return true;
  if (!process.stdin.isTTY) {
    complain('Say --yes to go on without being asked.');
    return false;
  }
  const question = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await question.question('Go on? [y/N] ');
  question.close();
  return /^y(es)?$/i.test(answer.trim());
}

/** What went wrong, for people: a stack only for what nobody foresaw. */
function explain(error: unknown): string {
  if (error instanceof ReelhaulError) return error.message;
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')
    return `${error.message}. Choose another port (PORT, or --port).`;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string')
    return `${error.message} [${error.code}]`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

try {
  await program.parseAsync();
} catch (error) {
  const usage =
    error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number'
      ? error.exitCode
      : null;
  if (usage === null) complain(explain(error));
  // Commander has said it already; its 1 means that the command line was wrong.
  process.exitCode = usage === null ? 1 : usage === 0 ? 0 : 2;
}
