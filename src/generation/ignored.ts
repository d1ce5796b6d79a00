/** What an order asks for that a known idempotency key leaves as it was. Pure. */
import type { EnqueueOptions } from './options.js';
import type { GenerationRecord } from './record.js';

export type IgnoredOption = 'metadata' | 'notifyUrl' | 'notifyOn' | 'onUnconfirmed' | 'priority' | 'runAt';

/** The same JSON gives the same text whatever the order of its keys. */
export function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, canonical(inner)]),
  );
}

const isSame = (a: unknown, b: unknown) => JSON.stringify(canonical(a)) === JSON.stringify(canonical(b));

/** Those of the options that are given and differ from the ones of then. Times from now always differ, and do not count. */
export function ignoredOptions(
  record: GenerationRecord,
  { metadata, notifyUrl, notifyOn, onUnconfirmed, priority, runAt }: EnqueueOptions,
): IgnoredOption[] {
  const given = { notifyUrl, notifyOn, onUnconfirmed, priority, runAt };
  const ignored = (Object.keys(given) as (keyof typeof given)[]).filter(
    (name) => given[name] !== undefined && given[name] !== record[name],
  );
  const otherMetadata = Object.keys(metadata).length > 0 && !isSame(metadata, record.metadata);
  return otherMetadata ? ['metadata', ...ignored] : ignored;
}
