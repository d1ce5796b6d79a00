/**
 * Traces: one per generation, whichever processes work on it. Its trace id is the generation's own id without hyphens,
 * so that nothing needs to be handed on, and the id of a generation is enough to find its trace. It promises to stay small:
 *
 * - the root `generation` lasts from enqueue to the first paid request, and links to the span the app enqueued in;
 * - a run of a stage is a span only when it moved the generation to another state; what only waited is none;
 * - all polls of a task are one span, from acceptance to the end that was seen, with the last of them as its events.
 *
 * Spans are written after the fact, from what a process tells of its transitions and work, so that no stage knows of
 * them. Not with `bullmq-otel`: it makes a span of every run of every job, which for a task that is polled a hundred
 * times is a hundred spans, of jobs that carry no context and may be written again by the sweep.
 */
import { randomBytes } from 'node:crypto';
import {
  ROOT_CONTEXT,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Attributes,
  type Context,
  type Link,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  ConsoleSpanExporter,
  NodeTracerProvider,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace-node';
import { within } from '../outbound/limit.js';
import type { Move, Moves } from '../generation/observers.js';
import type { GenerationRecord } from '../generation/record.js';
import type { State } from '../generation/states.js';
import { packageVersion } from '../version.js';
import type { RunName, Work, WorkLog } from '../generation/work.js';

const CLOSE_WITHIN_MS = 5000;
/** Of the polls this process made of a task, the last so many become events … */
const POLLS_KEPT = 20;
/** … for so many tasks at a time. */
const TASKS_KEPT = 10_000;

export interface Tracing {
  watch(told: { readonly moves: Moves; readonly work: WorkLog }): void;
  /** Sends what is left, within some seconds. */
  close(): Promise<void>;
}

interface Event {
  readonly name: string;
  readonly at: number;
  readonly attributes?: Attributes;
}

interface Drawn {
  readonly generationId: string;
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly attributes: Attributes;
  readonly events?: readonly Event[];
  readonly error?: string | null;
}

/** Which stage makes a move out of a state. The next stage may have begun before the one that handed over has ended. */
const STAGE_OF: Partial<Record<State, RunName>> = {
  queued: 'submit',
  submitting: 'submit',
  generating: 'poll',
  expired: 'poll',
  archiving: 'archive',
};
const runOf = (name: RunName, generationId: string) => `${name} ${generationId}`;

const traceIdOf = (generationId: string) => generationId.replaceAll('-', '');
const rootSpanIdOf = (generationId: string) => traceIdOf(generationId).slice(16);

/** The span that an app enqueued in, as a link; none when what is stored cannot be read. */
function linkTo(traceparent: string | null): Link[] {
  const [, traceId, spanId, flags] =
    /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent ?? '') ?? [];
  if (traceId === undefined || spanId === undefined) return [];
  return [{ context: { traceId, spanId, traceFlags: parseInt(flags ?? '0', 16), isRemote: true } }];
}

/** Every process decides the same about a trace, since only its id decides. */
function samplerFrom({ OTEL_TRACES_SAMPLER = '', OTEL_TRACES_SAMPLER_ARG = '1' }: NodeJS.ProcessEnv) {
  return OTEL_TRACES_SAMPLER.includes('traceidratio')
    ? new TraceIdRatioBasedSampler(Number(OTEL_TRACES_SAMPLER_ARG))
    : new AlwaysOnSampler();
}

/** Opens the exporter that the `OTEL_…` variables name. */
export function createTracing(environment: NodeJS.ProcessEnv): Tracing {
  // What the next root is to be called; every other span gets an id of its own.
  let root: { readonly traceId: string; readonly spanId: string } | null = null;
  const exporter =
    environment['OTEL_TRACES_EXPORTER'] === 'console' ? new ConsoleSpanExporter() : new OTLPTraceExporter();
  const provider = new NodeTracerProvider({
    resource: defaultResource().merge(
      resourceFromAttributes({
        'service.name': environment['OTEL_SERVICE_NAME'] ?? 'reelhaul',
        'service.version': packageVersion(),
      }),
    ),
    sampler: samplerFrom(environment),
    idGenerator: {
      generateTraceId: () => root?.traceId ?? randomBytes(16).toString('hex'),
      generateSpanId: () => root?.spanId ?? randomBytes(8).toString('hex'),
    },
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  const tracer = provider.getTracer('reelhaul', packageVersion());

  const runs = new Map<string, { readonly beganAt: number; readonly moves: Move[] }>();
  const polls = new Map<string, number[]>();

  const below = (generationId: string): Context =>
    trace.setSpanContext(ROOT_CONTEXT, {
      traceId: traceIdOf(generationId),
      spanId: rootSpanIdOf(generationId),
      traceFlags: TraceFlags.SAMPLED,
      isRemote: true,
    });

  function draw({ generationId, name, from, to, attributes, events = [], error = null }: Drawn): void {
    const span = tracer.startSpan(name, { startTime: from, attributes }, below(generationId));
    span.setAttribute('reelhaul.generation.id', generationId);
    for (const event of events) span.addEvent(event.name, event.attributes ?? {}, event.at);
    if (error !== null) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
    span.end(to);
  }

  function drawRoot({ record, at }: Move): void {
    const { id, tenant, createdAt, request, traceparent } = record;
    root = { traceId: traceIdOf(id), spanId: rootSpanIdOf(id) };
    const span = tracer.startSpan(
      'generation',
      {
        startTime: createdAt,
        root: true,
        links: linkTo(traceparent),
        attributes: {
          'reelhaul.generation.id': id,
          'reelhaul.tenant': tenant,
          'reelhaul.model': request.model,
        },
      },
      ROOT_CONTEXT,
    );
    root = null;
    span.end(at);
  }

  function drawRun(name: string, beganAt: number, at: number, moves: readonly Move[]): void {
    const [first, last] = [moves[0]!, moves.at(-1)!];
    // Given back as it was taken: nothing came of it, and it may happen any number of times.
    if (first.from === last.to) return;
    const { id: generationId } = first.record;
    const polled = first.from === 'generating';
    const events = moves.map((move): Event => ({ name: `${move.from} → ${move.to}`, at: move.at }));
    draw({
      generationId,
      name: polled ? 'poll' : name,
      from: polled ? (first.record.acceptedAt ?? beganAt) : beganAt,
      to: at,
      attributes: {
        'reelhaul.state': last.to,
        'reelhaul.task.id': String(last.change.set?.['taskId'] ?? last.record.taskId ?? ''),
        ...(polled ? { 'reelhaul.polls': first.record.attempts.poll } : {}),
      },
      events: [...(polled ? pollEvents(first.record) : []), ...events].sort((a, b) => a.at - b.at),
      error: last.to === 'failed' || last.to === 'unconfirmed' || last.to === 'expired' ? last.to : null,
    });
  }

  function pollEvents({ id, visibleAt, hintedAt, polledAt }: GenerationRecord): Event[] {
    const known = new Set([...(polls.get(id) ?? []), ...(polledAt === null ? [] : [polledAt])]);
    polls.delete(id);
    return [
      ...[...known].map((at) => ({ name: 'poll', at })),
      ...(visibleAt === null ? [] : [{ name: 'task visible', at: visibleAt }]),
      ...(hintedAt === null ? [] : [{ name: 'callback', at: hintedAt }]),
    ];
  }

  function rememberPoll(generationId: string, at: number): void {
    const before = polls.get(generationId) ?? [];
    polls.delete(generationId);
    polls.set(generationId, [...before, at].slice(-POLLS_KEPT));
    // The one that was polled longest ago comes first.
    if (polls.size > TASKS_KEPT) polls.delete(polls.keys().next().value!);
  }

  function onMove(move: Move): void {
    if (move.from === 'queued' && move.record.attempts.submit === 0) drawRoot(move);
    const own = STAGE_OF[move.from];
    const stages: readonly RunName[] = own ? [own] : ['submit', 'poll', 'archive'];
    const run = stages.map((stage) => runs.get(runOf(stage, move.record.id))).find(Boolean);
    if (run) run.moves.push(move);
    // Not a stage: a callback, an operator, the app.
    else drawRun(`to ${move.to}`, move.at, move.at, [move]);
  }

  function onWork(work: Work): void {
    if (work.kind === 'notified') {
      const { generationId, result, at } = work;
      // A failed try is told again by the next one, and there may be many.
      if (result === 'failed') return;
      const error = result === 'dead' ? result : null;
      draw({
        generationId,
        name: 'notify',
        from: at,
        to: at,
        attributes: { 'reelhaul.result': result },
        error,
      });
      return;
    }
    if (work.kind !== 'began' && work.kind !== 'ended') return;
    if (work.name === 'sweep' || work.name === 'notify') return;
    const { generationId } = work;
    if (work.kind === 'began') {
      runs.set(runOf(work.name, generationId), { beganAt: work.at, moves: [] });
      return;
    }
    const run = runs.get(runOf(work.name, generationId));
    runs.delete(runOf(work.name, generationId));
    if (run && run.moves.length > 0) drawRun(work.name, run.beganAt, work.at, run.moves);
    else if (work.name === 'poll') rememberPoll(generationId, work.beganAt);
  }

  return {
    watch({ moves, work }) {
      moves.listen(onMove);
      work.listen(onWork);
    },
    async close() {
      // What cannot be sent is lost; traces are no reason to keep a process.
      await within(CLOSE_WITHIN_MS, provider.shutdown());
    },
  };
}
