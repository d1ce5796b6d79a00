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
import { createFleetGauges } from './fleet-gauges.js';
import type { Fleet } from './snapshot.js';
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
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
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

  const created = counter('generations_created_total', 'Generations that this process enqueued.');
  const transitions = counter('transitions_total', 'Transitions that this process made.', ['from', 'to']);
  const unconfirmed = counter(
    'unconfirmed_total',
    'Submits of which it is not known whether they were accepted.',
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

  const showFleet = createFleetGauges(gauge);

  // Zero is a value: without it the first of a kind would be no increase.
  for (const from of STATES)
    for (const to of STATES) if (mayFollow(from, to)) transitions.inc({ from, to }, 0);
  for (const charge of ['charged', 'possible', 'refunded']) bills.inc({ charge }, 0);
  for (const result of ['delivered', 'failed', 'dead']) notifications.inc({ result }, 0);
  for (const alarm of ALARMS) alarms.inc({ alarm }, 0);

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
      showFleet(await fleet.read(), refusals.length === 0);
      return register.metrics();
    },
    contentType: register.contentType,
  };
}

const seconds = (ms: number): number => Math.max(0, ms) / 1000;

/** 429 stands apart from the other 4xx: it slows all calls down. */
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
