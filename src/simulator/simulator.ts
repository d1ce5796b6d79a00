/**
 * The simulated provider: a real HTTP server that speaks CometAPI's Runway API, makes the faults that a script or a rate asks
 * for, and keeps a ledger of what it would have billed. It spends nothing and needs nothing beside Node.
 *
 * `docs/simulator.md` lists the directives, the random faults and the routes.
 */
import http from 'node:http';
import type { Socket } from 'node:net';
import { gatewayError, json, parseJson, readBody, send, text, UNAUTHORIZED } from './answers.js';
import { createAssetHost } from './assets.js';
import { createCallbackSender } from './callbacks.js';
import { answerControl } from './control.js';
import { checkRates, type Rates } from './faults.js';
import { answerPoll, notVisible } from './feed.js';
import { createGenerations } from './generations.js';
import { helpText } from './help.js';
import { createInputFetcher } from './inputs.js';
import { createIntake } from './intake.js';
import { createLedger } from './ledger-book.js';
import { createLimiter } from './limits.js';
import { linksOf } from './links.js';
import { ASSET_NAMES } from './media.js';
import type { Simulator, SimulatorOptions } from './options.js';
import { createOutages, type Outage } from './outages.js';
import { parseScript } from './script.js';
import { type ScriptPart } from './script-fields.js';
import { mediaOfTask } from './task.js';
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
export { ScriptError } from './script-values.js';

const DEFAULT_DURATION_MS = 2000;
const DEFAULT_WAIT_MS = 10_000;
/** Time for the answer to a control request to leave before the port closes. */
const OWN_ANSWER_MS = 20;
const POINTS_PER_TASK = 320;
const TOTAL_QUOTA = 10_000_000;

const LOOPBACK = /^(?:localhost|.+\.localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/i;

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
  const closing = new AbortController();

  const timers = createTimers();
  const ledger = createLedger(options.rateLimit?.windowMs ?? 1000);
  const generations = createGenerations(seed);
  const limiter = createLimiter(options.rateLimit ?? null, options.maxInFlight ?? null);
  const assets = createAssetHost({ ledger, timers, now, apiKey, otherPort: () => otherPort });
  const isOurs = (name: string) => LOOPBACK.test(name) || callbackHosts.includes(name);
  const callbacks = createCallbackSender({
    ledger,
    timers,
    now,
    urlsOf: (task) => linksOf(task, otherPort),
    mayPostTo: (name) => isOurs(name) || callbackHosts.includes('*'),
    delayMs: options.callbackDelayMs ?? 0,
  });

  function onFault(error: unknown): void {
    log('fault', { error: error instanceof Error ? error.message : 'unknown' });
  }

  function isAuthorized(request: http.IncomingMessage): boolean {
    return apiKey === null || request.headers.authorization === `Bearer ${apiKey}`;
  }

  function originOf(request: http.IncomingMessage): string {
    const candidate = `http://${request.headers.host ?? ''}`;
    return URL.canParse(candidate) ? new URL(candidate).origin : url;
  }

  async function handleSubmit(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const version = request.headers['x-runway-version'];
    const entry = ledger.submitArrived(now(), typeof version === 'string' ? version : null);
    try {
      const answer = await intake.decide(request, entry);
      entry.httpStatus = answer.manner === 'reset' || answer.manner === 'hang' ? null : answer.status;
      log('submit', { seq: entry.seq, outcome: entry.outcome, taskIds: entry.taskIds });
      await send(response, answer, timers);
    } finally {
      // Without an outcome the client went away before it had sent everything.
      entry.outcome ??= 'aborted';
      ledger.submitDone(entry, now());
    }
  }

  async function handlePoll(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const body = parseJson(await readBody(request));
    ledger.callArrived(now());
    const away = outages.answer();
    if (away !== null) return send(response, away, timers);
    if (!isAuthorized(request)) return send(response, UNAUTHORIZED, timers);
    const wanted = typeof body === 'object' && body !== null && 'task_id' in body ? body.task_id : undefined;
    if (typeof wanted !== 'string' && typeof wanted !== 'number') {
      return send(response, gatewayError(400, 'invalid_request', 'task_id is missing'), timers);
    }
    const limited = limiter.refusePoll(now());
    if (limited !== null) {
      ledger.pollRefused();
      const retryAfter = String(Math.ceil(limited.retryAfterMs / 1000));
      return send(
        response,
        gatewayError(429, 'rate_limit_exceeded', 'too many requests', retryAfter),
        timers,
      );
    }
    const task = ledger.task(String(wanted));
    const { answer, outcome } = task
      ? answerPoll(task, now(), (polled) => linksOf(polled, otherPort))
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

  const outages = createOutages({
    timers,
    closePort: () => stopListening(mainServer),
    async openPort() {
      if (!mainServer.listening && !closing.signal.aborted) await listen(mainServer, host, port);
    },
    onFault,
  });

  const intake = createIntake({
    seed,
    now,
    timers,
    ledger,
    generations,
    limiter,
    callbacks,
    inputs: createInputFetcher(isOurs),
    taskDurationMs: options.taskDurationMs ?? DEFAULT_DURATION_MS,
    rates: () => rates,
    defaultScript: () => defaultScript,
    outage: () => outages.answer(),
    isAuthorized,
    originOf,
  });

  const servers = [http.createServer(handle), http.createServer(handle)] as const;
  const sockets = new Set<Socket>();
  for (const server of servers) {
    // Slow submits and dripping bodies are wanted here: no time-out ends them.
    server.requestTimeout = 0;
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => sockets.delete(socket));
    });
  }
  const [mainServer, otherServer] = servers;
  // The other one first: as soon as the main port takes requests, everything they need is there.
  const otherPort = await listen(otherServer, host, 0);
  const port = await listen(mainServer, host, options.port ?? 0).catch(async (error: unknown) => {
    await stopListening(otherServer);
    throw error;
  });
  const shownHost = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const url = `http://${shownHost.includes(':') ? `[${shownHost}]` : shownHost}:${port}`;

  function stopListening(server: http.Server): Promise<void> {
    return new Promise((resolve) => {
      // The error says that it does not listen (an outage), which is what is wanted.
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  }

  function reset(): void {
    ledger.clear();
    generations.clear();
    limiter.clear();
    callbacks.cancelAll();
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
    waitForLedger(condition, timeoutMs, {
      ledger,
      timers,
      now,
      closing: closing.signal,
    });

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
      closing.abort(new Error('The simulator was closed.'));
      callbacks.close();
      timers.clear();
      await Promise.all(servers.map(stopListening));
    },
  };
}
