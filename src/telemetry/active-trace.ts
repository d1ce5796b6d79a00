/**
 * The span an app is in when it enqueues, so that a generation's trace can name it. Nothing is loaded unless the app
 * itself runs OpenTelemetry, which leaves its API where every copy of it finds it.
 */
const API = Symbol.for('opentelemetry.js.api.1');

/** @returns reads the `traceparent` of the span that is active now; null when there is none. */
export async function openActiveTrace(): Promise<() => string | null> {
  if (!(API in globalThis)) return () => null;
  const { context, isSpanContextValid, trace } = await import('@opentelemetry/api');
  return () => {
    const span = trace.getSpanContext(context.active());
    if (!span || !isSpanContextValid(span)) return null;
    return `00-${span.traceId}-${span.spanId}-${span.traceFlags.toString(16).padStart(2, '0')}`;
  };
}

/** Should this process send traces? As the OpenTelemetry variables say; without any of them: no. */
export function wantsTraces(environment: Readonly<Record<string, string | undefined>>): boolean {
  const { OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_TRACES_SAMPLER } = environment;
  if (OTEL_SDK_DISABLED === 'true' || OTEL_TRACES_EXPORTER === 'none' || OTEL_TRACES_SAMPLER === 'always_off')
    return false;
  const endpoint =
    environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? environment['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'];
  return Boolean(endpoint ?? OTEL_TRACES_EXPORTER);
}
