/**
 * Metrics for Prometheus. Counters and histograms are of this process and cost no Redis command; gauges of the whole
 * fleet are read from Redis at the scrape, and every process tells the same (take their `max`). Labels are bounded:
 * stages, states, outcomes, codes, never a tenant or an id. `docs/operating.md` says what to do about each.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Move, Moves } from '../generation/observers.js';
import type { Assets, Failure } from '../generation/record.js';
import { RECORD_VERSION } from '../store/read-record.js';
import { isTerminal, mayFollow, STATES } from '../generation/states.js';
import type { Submit } from '../generation/submits.js';
import { since } from '../generation/history.js';
import { packageVersion } from '../version.js';
import type { Work, WorkLog } from '../generation/work.js';
import type { Fleet, FleetFigures } from './snapshot.js';
import type { Health } from './health.js';

/** Every `alarm` that a log line may carry; a test compares this list with the code. */
export const ALARMS = [
  'budget',
  'clock',
  'generation_forgotten',
  'layout',
  'misconfigured',
  'misrouted',
  'notification_dead',
  'post_forgotten',
  'provider_away',
  'refused',
  'second_task',
  'storage',
  'task_not_saved',
  'task_taken',
  'unconfirmed',
  'verdict_not_saved',
] as const;

const QUEUE_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400];
const TASK_SECONDS = [5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1800, 3600, 86_400];
const ARCHIVE_SECONDS = [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900];
const DETECTION_SECONDS = [0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120];
const POLLS = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100];
const RUN_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900];
const CALL_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90];

export interface Metrics {
  /** Counts what these tell from now on. */
  watch(told: { readonly moves: Moves; readonly work: WorkLog }): void;
  alarmed(alarm: string): void;
  /** The exposition format, with the gauges of the fleet. */
  text(fleet: Fleet, health: Pick<Health, 'refusals'>): Promise<string>;
  readonly contentType: string;
}

export function createMetrics(): Metrics {
  const register = new Registry();
  const registers = [register];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter({ name: `reelhaul_${name}`, help, labelNames, registers });
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge({ name: `reelhaul_${name}`, help, labelNames, registers });
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ) => new Histogram({ name: `reelhaul_${name}`, help, buckets, labelNames, registers });
  // Its default of 10 ms wakes an idle process a hundred times a second.
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: 100 });
  // Older names of gauges that are there by their right names as well; promtool takes these for counters.
  for (const kind of ['handles', 'requests', 'resources'])
    register.removeSingleMetric(`nodejs_active_${kind}_total`);

  gauge('build_info', 'Always 1; what runs.', ['version', 'record_version']).set(
    { version: packageVersion(), record_version: RECORD_VERSION },
    1,
  );

  // ---- of this process ----
  const created = counter('generations_created_total', 'Generations that this process enqueued.');
  const transitions = counter('transitions_total', 'Transitions that this process made.', ['from', 'to']);
  const unconfirmed = counter(
    'unconfirmed_total',
    'Submits of which nobody knows whether they were accepted.',
  );
  const failures = counter('failures_total', 'Generations that failed or expired, by why.', [
    'stage',
    'code',
  ]);
  const bills = counter(
    'bills_total',
    'What was learnt of bills: a task exists (charged), may exist (possible), was given back (refunded).',
    ['charge'],
  );
  const queueSeconds = histogram(
    'queue_seconds',
    'Our queue: from enqueue (or the wished start) to the first paid request.',
    QUEUE_SECONDS,
  );
  const providerSeconds = histogram(
    'provider_seconds',
    'The provider: from acceptance to the end of the task as we saw it.',
    TASK_SECONDS,
  );
  const archiveSeconds = histogram(
    'archive_seconds',
    'Our archive: from the end of the task to the stored video.',
    ARCHIVE_SECONDS,
  );
  const generationSeconds = histogram(
    'generation_seconds',
    'The whole: from enqueue to the end.',
    TASK_SECONDS,
    ['state'],
  );
  const detection = histogram(
    'detection_delay_seconds',
    'From the end of a task, by the provider’s own times, to the poll that saw it.',
    DETECTION_SECONDS,
  );
  const polls = histogram('polls_per_generation', 'Polls it took until a task was seen over.', POLLS);
  const runSeconds = histogram('stage_run_seconds', 'Runs of a stage, by how they ended.', RUN_SECONDS, [
    'stage',
    'outcome',
  ]);
  const inFlight = gauge('stage_runs_in_flight', 'Runs of a stage that are going on in this process.', [
    'stage',
  ]);
  const calls = counter('provider_calls_total', 'Calls to the provider, by what their answer meant.', [
    'call',
    'outcome',
    'http',
  ]);
  const callSeconds = histogram('provider_call_seconds', 'How long calls took.', CALL_SECONDS, ['call']);
  const archivedBytes = counter('archived_bytes_total', 'Bytes of videos that were stored.');
  const notifications = counter('notifications_total', 'Tries to notify an app.', ['result']);
  const repairs = counter('sweep_repairs_total', 'Lost jobs that the sweep wrote again.');
  const pruned = counter('sweep_pruned_total', 'Finished generations that the sweep forgot.');
  const alarms = counter('alarms_total', 'Log lines with an alarm.', ['alarm']);

  // Zero is a value: without it the first of a kind would be no increase.
  for (const from of STATES)
    for (const to of STATES) if (mayFollow(from, to)) transitions.inc({ from, to }, 0);
  for (const charge of ['charged', 'possible', 'refunded']) bills.inc({ charge }, 0);
  for (const result of ['delivered', 'failed', 'dead']) notifications.inc({ result }, 0);
  for (const alarm of ALARMS) alarms.inc({ alarm }, 0);

  // ---- of the fleet ----
  const redisUp = gauge('redis_up', 'Whether Redis answered this scrape.');
  const takesWrites = gauge(
    'redis_takes_writes',
    'Whether Redis took a write at this scrape: one that is full, has a full disk or became a replica answers and takes none.',
  );
  const generations = gauge('generations', 'Generations in each state, in the fleet.', ['state']);
  const jobsDue = gauge('jobs_due', 'Jobs that a worker could take now, in the fleet: scale on this.', [
    'stage',
  ]);
  const jobsDelayed = gauge('jobs_delayed', 'Jobs whose time has not come, in the fleet.', ['stage']);
  const jobsActive = gauge('jobs_active', 'Jobs that a worker holds, in the fleet.', ['stage']);
  const paused = gauge('stage_paused', 'Whether the stage holds still (a 429, a refused key).', ['stage']);
  const stageWorkers = gauge('stage_workers', 'Workers that run the stage just now, in the fleet.', [
    'stage',
  ]);
  const owed = gauge('notifications_owed', 'Generations whose app is still to be told something.');
  const dead = gauge('notifications_dead', 'Generations whose app could not be told.');
  const refused = gauge('provider_refused', 'Whether the provider refuses the key or its quota.');
  const misrouted = gauge('provider_misrouted', 'Whether something in front of the API answers submits.');
  const away = gauge('provider_away', 'Whether the outage breaker holds these calls: the provider is away.', [
    'call',
  ]);
  const probes = gauge('provider_away_probes', 'Calls that looked since then whether it is back.', ['call']);
  const held = gauge('provider_hold_seconds', 'How long these calls still hold still after a 429.', ['call']);
  const slowedTo = gauge('provider_slowed_to', 'Calls a second to which a 429 slows all down; absent: none.');
  const atProvider = gauge(
    'provider_in_flight',
    'What lives at the provider, or may, as MAX_IN_FLIGHT counts.',
  );
  const mostAtProvider = gauge('provider_in_flight_max', 'MAX_IN_FLIGHT as it is in force; absent: no cap.');
  const overBudget = gauge('waiting_for_budget', "Generations that wait for the next day's budget.");
  const spend = gauge(
    'spend',
    'Spent today (UTC), in the currency of PRICES: charged, and possibly billed.',
    ['bill'],
  );
  const budget = gauge('budget', 'What may be spent today, as it is in force; absent: no budget.');
  const sweptAt = gauge('sweep_last_timestamp_seconds', 'When the last sweep of the fleet ended.');
  const ping = gauge('redis_ping_seconds', 'How long Redis took to answer.');
  const memoryUsed = gauge('redis_memory_used_bytes', 'Memory that Redis uses.');
  const memoryMax = gauge('redis_memory_max_bytes', 'Its maxmemory; 0: no limit.');
  const labelled = [
    generations,
    jobsDue,
    jobsDelayed,
    jobsActive,
    paused,
    stageWorkers,
    away,
    probes,
    held,
    spend,
  ];
  const limiting = [refused, misrouted, slowedTo, atProvider, mostAtProvider, overBudget, budget];
  const single = [owed, dead, sweptAt, ping, memoryUsed, memoryMax, ...limiting];
  // What has no value is not there: 0 would be a limit.
  const setOrRemove = (one: Gauge, value: number | null | undefined) =>
    value === null || value === undefined ? one.remove() : one.set(value);

  function showLimits({ limits, spent }: FleetFigures): void {
    refused.set(limits.refused ? 1 : 0);
    misrouted.set(limits.misrouted ? 1 : 0);
    for (const call of ['submit', 'poll'] as const) {
      away.set({ call }, limits.breaker[call].openAt === null ? 0 : 1);
      probes.set({ call }, limits.breaker[call].probes);
      held.set({ call }, limits.holdMs[call] / 1000);
    }
    setOrRemove(slowedTo, limits.slowedTo);
    atProvider.set(limits.inFlight);
    setOrRemove(mostAtProvider, limits.maxInFlight);
    overBudget.set(limits.overBudget);
    spend.set({ bill: 'charged' }, spent.charged);
    spend.set({ bill: 'possible' }, spent.possible);
    setOrRemove(budget, limits.inForce?.budgetPerDay);
  }

  function show(figures: FleetFigures | null): void {
    redisUp.set(figures === null ? 0 : 1);
    if (figures === null) {
      // Nothing is known: a last value would look like news.
      for (const one of labelled) one.reset();
      for (const one of single) one.remove();
      return;
    }
    for (const [state, n] of Object.entries(figures.generations)) generations.set({ state }, n);
    for (const [stage, { due, delayed, active, pausedForMs }] of Object.entries(figures.backlog)) {
      jobsDue.set({ stage }, due);
      jobsDelayed.set({ stage }, delayed);
      jobsActive.set({ stage }, active);
      paused.set({ stage }, pausedForMs > 0 ? 1 : 0);
    }
    for (const [stage, n] of Object.entries(figures.workers)) stageWorkers.set({ stage }, n);
    owed.set(figures.notificationsOwed);
    dead.set(figures.notificationsDead);
    showLimits(figures);
    sweptAt.set((figures.sweptAt ?? 0) / 1000);
    ping.set(figures.pingMs / 1000);
    memoryUsed.set(figures.usedBytes);
    memoryMax.set(figures.maxBytes);
  }

  function countMove({ record, from, to, at, change }: Move): void {
    transitions.inc({ from, to });
    const { createdAt, runAt, acceptedAt, attempts, trail } = record;
    if (to === 'submitting' && attempts.submit === 0)
      queueSeconds.observe(seconds(at - Math.max(createdAt, runAt ?? 0)));
    if (to === 'unconfirmed') unconfirmed.inc();
    if (from === 'generating') polls.observe(attempts.poll);
    // A late one took longest of all.
    if ((from === 'generating' || from === 'expired') && (to === 'archiving' || to === 'failed'))
      providerSeconds.observe(seconds(at - (acceptedAt ?? at)));
    if (to === 'succeeded') {
      archiveSeconds.observe(seconds(at - since(trail, createdAt)));
      archivedBytes.inc(videoBytes(change.set?.['assets']));
    }
    if (isTerminal(to)) generationSeconds.observe({ state: to }, seconds(at - createdAt));
    if (to === 'failed' || to === 'expired') {
      const failure = readJson(change.set?.['failure']) as Partial<Failure>;
      failures.inc({ stage: failure.stage ?? 'unknown', code: failure.code ?? 'unknown' });
    }
    if (to === 'unconfirmed') bills.inc({ charge: 'possible' });
    // A task that was said to have failed, and has not, was counted when it was accepted.
    if (to === 'archiving' || change.submits === undefined) return;
    for (const charge of ['charged', 'refunded'] as const) {
      const settled = (submits: readonly Submit[]) => submits.filter(({ bill }) => bill === charge).length;
      bills.inc({ charge }, Math.max(0, settled(change.submits) - settled(record.submits)));
    }
  }

  function count(work: Work): void {
    switch (work.kind) {
      case 'began':
        return inFlight.inc({ stage: work.name });
      case 'ended':
        inFlight.dec({ stage: work.name });
        return runSeconds.observe(
          { stage: work.name, outcome: work.outcome },
          seconds(work.at - work.beganAt),
        );
      case 'called': {
        const { call, outcome, httpStatus } = work;
        calls.inc({ call, outcome, http: httpClass(httpStatus) });
        return callSeconds.observe({ call }, seconds(work.durationMs));
      }
      case 'detected':
        return detection.observe(seconds(work.delayMs));
      case 'created':
        return created.inc();
      case 'swept':
        repairs.inc(work.restored);
        return pruned.inc(work.pruned);
      case 'notified':
        return notifications.inc({ result: work.result });
    }
  }

  return {
    watch({ moves, work }) {
      moves.listen(countMove);
      work.listen(count);
    },
    alarmed: (alarm) => alarms.inc({ alarm }),
    async text(fleet, health) {
      // One after the other: a refusal may make the connection anew, under the reads.
      const refusals = await health.refusals();
      const figures = await fleet.read();
      show(figures);
      takesWrites.set(refusals.length === 0 ? 1 : 0);
      return register.metrics();
    },
    contentType: register.contentType,
  };
}

const seconds = (ms: number): number => Math.max(0, ms) / 1000;

/** 429 stands apart from the other 4xx: it is the one that slows everybody down. */
function httpClass(status: number | null): string {
  if (status === null) return 'none';
  return status === 429 ? '429' : `${Math.floor(status / 100)}xx`;
}

/** What a change writes as JSON. */
function readJson(text: unknown): unknown {
  return typeof text === 'string' ? JSON.parse(text) : {};
}

function videoBytes(assets: unknown): number {
  return (readJson(assets) as Partial<Assets>).video?.sizeBytes ?? 0;
}
