/**
 * A provider to play against: a real HTTP server that speaks CometAPI's Runway API, as nasty as a script or the dice
 * say, and that keeps books of what it would have billed. It spends nothing and needs nothing beside Node.
 *
 * `docs/simulator.md` lists the directives, the random faults and the routes.
 */
import http from 'node:http';
import type { Socket } from 'node:net';
import { gatewayError, json, readBody, send, text, type Answer } from './answers.js';
import { createAssetHost } from './assets.js';
import { createCallbackSender } from './callbacks.js';
import { answerControl } from './control.js';
import { rollNormal, rollTaskId } from './dice.js';
import { checkRates, type Rates } from './faults.js';
import { answerPoll, notVisible } from './feed.js';
import { createGenerations, type Generation } from './generations.js';
import { helpText } from './help.js';
import { createLedger, type LedgerSubmit } from './ledger.js';
import { createLimiter } from './limits.js';
import { ASSET_NAMES } from './media.js';
import type { Simulator, SimulatorOptions } from './options.js';
import { createOutages, type Outage } from './outages.js';
import {
  DEFAULT_SCRIPT,
  parseScript,
  ScriptError,
  scriptTextIn,
  scriptTextOfHeader,
  stepAt,
  type Script,
  type ScriptPart,
} from './script.js';
import { answerSubmit, refusalOf, submitSchema, tasksCreatedBy } from './submit.js';
import { createTask, mediaOfTask, type Task } from './task.js';
import { createTimers } from './timers.js';
import { waitForLedger } from './waits.js';

export { FAULTS, parseRates, RatesError, type FaultName, type Rates } from './faults.js';
export {
  billsPerGeneration,
  type GenerationBills,
  type Ledger,
  type LedgerAsset,
  type LedgerAssetRequest,
  type LedgerCallback,
  type LedgerSubmit,
  type LedgerTask,
  type LedgerTotals,
} from './ledger.js';
export type { AssetName } from './media.js';
export type { Outage, OutageMode } from './outages.js';
export type { DurationSpread, Simulator, SimulatorOptions } from './options.js';
export { parseDuration, ScriptError } from './script.js';

const UNAUTHORIZED = gatewayError(401, '', 'Invalid token');

const DEFAULT_DURATION_MS = 2000;
const DEFAULT_WAIT_MS = 10_000;
/** Time for the answer to a control request to leave before the port closes. */
const OWN_ANSWER_MS = 20;
const MAX_BODY_BYTES = 1024 * 1024;
const POINTS_PER_TASK = 320;
const TOTAL_QUOTA = 10_000_000;

const LOOPBACK = /^(?:localhost|.+\.localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/i;

function parseJson(body: string | null): unknown {
  if (body === null) return undefined;
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function listen(server: http.Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : port);
    });
  });
}

export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const host = options.host ?? '127.0.0.1';
  const seed = options.seed ?? 1;
  const apiKey = options.apiKey ?? null;
  const now = options.now ?? Date.now;
  const log = options.log ?? (() => undefined);
  const callbackHosts = options.callbackHosts ?? [];
  let rates = checkRates(options.rates ?? {});
  let defaultScript: ScriptPart = parseScript(options.script ?? '');
  let isClosed = false;

  const timers = createTimers();
  const ledger = createLedger(options.rateLimit?.windowMs ?? 1000);
  const generations = createGenerations(seed);
  const limiter = createLimiter(options.rateLimit ?? null, options.maxInFlight ?? null);
  const assets = createAssetHost({ ledger, timers, now, apiKey, otherPort: () => otherPort });
  const callbacks = createCallbackSender({
    ledger,
    timers,
    now,
    urlsOf: (task) => assets.urlsOf(task),
    mayPostTo: (name) => LOOPBACK.test(name) || callbackHosts.includes('*') || callbackHosts.includes(name),
    delayMs: options.callbackDelayMs ?? 0,
  });

  function onFault(error: unknown): void {
    log('fault', { error: error instanceof Error ? error.message : 'unknown' });
  }

  function isAuthorized(request: http.IncomingMessage): boolean {
    return apiKey === null || request.headers.authorization === `Bearer ${apiKey}`;
  }

  function durationOf(generation: Generation, script: Script): number {
    if (script.durationMs !== null) return script.durationMs;
    const wish = options.taskDurationMs ?? DEFAULT_DURATION_MS;
    if (typeof wish === 'number') return wish;
    const factor = Math.exp((wish.sigma ?? 0.4) * rollNormal(seed, 'duration', generation.name));
    return Math.min(wish.medianMs * factor, wish.maxMs ?? 10 * wish.medianMs);
  }

  function newTaskId(generation: Generation, script: Script): string {
    for (let attempt = 0; ; attempt += 1) {
      const taskId = rollTaskId(seed, script.id, generation.name, generation.tasks, attempt);
      if (!ledger.task(taskId)) return taskId;
    }
  }

  /** Decides a submit up to its answer; what it did is in the entry. */
  async function decideSubmit(request: http.IncomingMessage, entry: LedgerSubmit): Promise<Answer> {
    const body = parseJson(await readBody(request, MAX_BODY_BYTES));
    const away = outages.answer();
    if (away !== null) {
      entry.outcome = 'outage';
      return away;
    }
    if (!isAuthorized(request)) {
      entry.outcome = 'unauthorized';
      return UNAUTHORIZED;
    }
    const refusal = refusalOf(body);
    if (refusal !== null) {
      entry.outcome = 'bad-request';
      return refusal;
    }
    const { prompt, callback_url: callbackUrl } = submitSchema.parse(body);
    const generation = generations.of(prompt, callbackUrl, rates);
    entry.prompt = prompt;
    entry.callbackUrl = callbackUrl;
    entry.generationId = generation.generationId;
    entry.generationKey = generation.key;
    entry.faults = [...generation.drawn.faults];

    let script: Script;
    try {
      const inPrompt = scriptTextIn(prompt);
      const inHeader = scriptTextOfHeader(String(request.headers['x-simulator-script'] ?? ''));
      entry.script = [inPrompt, inHeader].filter((part) => part.trim() !== '').join(', ');
      script = {
        ...DEFAULT_SCRIPT,
        ...generation.drawn.script,
        ...defaultScript,
        ...parseScript(inPrompt),
        ...parseScript(inHeader),
      };
    } catch (error) {
      if (!(error instanceof ScriptError)) throw error;
      entry.outcome = 'bad-script';
      log('bad-script', { seq: entry.seq, message: error.message });
      return json(400, { code: 'simulator_script_invalid', message: error.message, data: null });
    }

    const limited = limiter.refuse(now(), ledger.tasksInFlight(now()));
    if (limited !== null) {
      entry.outcome = 'rate-limited';
      const seconds = limited.retryAfterMs === null ? null : String(Math.ceil(limited.retryAfterMs / 1000));
      return gatewayError(429, 'rate_limit_exceeded', 'too many requests', seconds);
    }

    const step = stepAt(script.submit, generation.submits);
    generation.submits += 1;
    let task: Task | null = null;
    const origin = originOf(request);
    for (let left = tasksCreatedBy(step); left > 0; left -= 1) {
      task = createTask(
        {
          taskId: newTaskId(generation, script),
          submitSeq: entry.seq,
          generationKey: generation.key,
          generationId: generation.generationId,
          prompt,
          callbackUrl,
          script,
          origin,
          createdAt: now(),
        },
        durationOf(generation, script),
      );
      generation.tasks += 1;
      entry.taskIds.push(task.taskId);
      ledger.taskCreated(task);
      callbacks.schedule(task);
    }
    entry.outcome = step.word;
    ledger.changed();
    if (task && script.callback.includes('early')) await callbacks.postEarly(task);
    if (script.submitDelayMs > 0) await timers.sleep(script.submitDelayMs);
    return answerSubmit(step, script, task, now());
  }

  /** The origin under which the client knows us: its links must work for it, in a container too. */
  function originOf(request: http.IncomingMessage): string {
    const candidate = `http://${request.headers.host ?? ''}`;
    return URL.canParse(candidate) ? new URL(candidate).origin : url;
  }

  async function handleSubmit(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const version = request.headers['x-runway-version'];
    const entry = ledger.submitArrived(now(), typeof version === 'string' ? version : null);
    const answer = await decideSubmit(request, entry);
    entry.httpStatus = answer.manner === 'reset' || answer.manner === 'hang' ? null : answer.status;
    log('submit', { seq: entry.seq, outcome: entry.outcome, taskIds: entry.taskIds });
    await send(response, answer, timers);
    ledger.submitDone(entry, now());
  }

  async function handlePoll(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const body = parseJson(await readBody(request, MAX_BODY_BYTES));
    const away = outages.answer();
    if (away !== null) return send(response, away, timers);
    if (!isAuthorized(request)) return send(response, UNAUTHORIZED, timers);
    const wanted = typeof body === 'object' && body !== null && 'task_id' in body ? body.task_id : undefined;
    if (typeof wanted !== 'string' && typeof wanted !== 'number') {
      return send(response, gatewayError(400, 'invalid_request', 'task_id is missing'), timers);
    }
    const task = ledger.task(String(wanted));
    const { answer, outcome } = task
      ? answerPoll(task, now(), (polled) => assets.urlsOf(polled))
      : { answer: notVisible(400), outcome: 'stray' };
    ledger.pollArrived(task ?? null, now(), outcome);
    return send(response, answer, timers);
  }

  async function handleExpected(path: string, response: http.ServerResponse): Promise<void> {
    const [, taskId = '', name = ''] = /^\/expected\/([^/]+)\/([^/]+)$/.exec(path) ?? [];
    const asset = ASSET_NAMES.find((candidate) => candidate === name);
    const task = ledger.task(taskId);
    if (!task || asset === undefined) {
      return send(
        response,
        json(404, { message: `expected /expected/<taskId>/<${ASSET_NAMES.join('|')}>` }),
        timers,
      );
    }
    const sha256 = await ledger.expectedSha256(taskId, asset);
    return send(response, json(200, { sizeBytes: mediaOfTask(task, asset).sizeBytes, sha256 }), timers);
  }

  async function route(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const requested = new URL(request.url ?? '/', 'http://simulator');
    const call = `${request.method ?? ''} ${requested.pathname}`;
    if (call === 'POST /runway/pro/generate') return handleSubmit(request, response);
    if (call === 'POST /runway/feed') return handlePoll(request, response);
    if (call === 'GET /') return send(response, text(200, helpText()), timers);
    if (call === 'GET /ledger') {
      const books = ledger.snapshot(now());
      const part = requested.searchParams.get('part') === 'totals' ? books.totals : books;
      return send(response, json(200, part), timers);
    }
    if (requested.pathname.startsWith('/expected/')) return handleExpected(requested.pathname, response);
    if (call.startsWith('POST /control/')) {
      const action = requested.pathname.slice('/control/'.length);
      return send(response, await answerControl(request, action, controls), timers);
    }
    const away = outages.answer();
    if (away !== null) return send(response, away, timers);
    if (call === 'GET /user/quota') {
      const used = ledger.snapshot(now()).totals.bills * POINTS_PER_TASK;
      return send(
        response,
        json(200, {
          total_quota: TOTAL_QUOTA - used,
          total_used_quota: used,
          request_count: used / POINTS_PER_TASK,
        }),
        timers,
      );
    }
    if (await assets.handle(request, response, requested)) return;
    return send(response, json(404, { error: { message: `Invalid URL (${call})`, code: '' } }), timers);
  }

  function handle(request: http.IncomingMessage, response: http.ServerResponse): void {
    route(request, response).catch((error: unknown) => {
      // A client that hangs up while it sends its body ends here too.
      onFault(error);
      response.socket?.destroy();
    });
  }

  const servers = [http.createServer(handle), http.createServer(handle)] as const;
  const sockets = new Set<Socket>();
  for (const server of servers) {
    // Slow submits and dripping bodies are the simulator's trade: it never hurries a client.
    server.requestTimeout = 0;
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => sockets.delete(socket));
    });
  }
  const [mainServer, otherServer] = servers;
  const port = await listen(mainServer, host, options.port ?? 0);
  const otherPort = await listen(otherServer, host, 0);
  const shownHost = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const url = `http://${shownHost.includes(':') ? `[${shownHost}]` : shownHost}:${port}`;

  function stopListening(server: http.Server): Promise<void> {
    return new Promise((resolve) => {
      // The error says that it does not listen (an outage), which is what is wanted.
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  }

  const outages = createOutages({
    timers,
    closePort: () => stopListening(mainServer),
    async openPort() {
      if (!mainServer.listening && !isClosed) await listen(mainServer, host, port);
    },
    onFault,
  });

  function reset(): void {
    ledger.clear();
    generations.clear();
    limiter.clear();
  }

  function setRates(wanted: Rates): void {
    rates = checkRates(wanted);
  }

  function setScript(wanted: string): void {
    defaultScript = parseScript(wanted);
  }

  const controls = {
    setRates,
    setScript,
    reset,
    startOutage(outage: Outage) {
      // Its own answer must leave first.
      timers.after(OWN_ANSWER_MS, () => {
        outages.start(outage).catch(onFault);
      });
    },
    endOutage() {
      outages.end().catch(onFault);
    },
  };

  const waitUntil: Simulator['waitUntil'] = (condition, timeoutMs = DEFAULT_WAIT_MS) =>
    waitForLedger(condition, timeoutMs, { ledger, timers, now });

  return {
    url,
    port,
    otherPort,
    ledger: () => ledger.snapshot(now()),
    expectedSha256: (taskId, asset) => ledger.expectedSha256(taskId, asset),
    setRates,
    setScript,
    reset,
    startOutage: (outage) => outages.start(outage),
    endOutage: () => outages.end(),
    waitUntil,
    waitForSubmit: (predicate = () => true, timeoutMs?: number) =>
      waitUntil((books) => books.submits.find(predicate), timeoutMs),
    subscribe: (listener) => ledger.subscribe(listener),
    async close() {
      isClosed = true;
      callbacks.close();
      timers.clear();
      await Promise.all(servers.map(stopListening));
    },
  };
}
