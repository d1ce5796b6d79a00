/**
 * Finding generations: pages by state, tenant and time straight from the indexes, by model through a bounded look at
 * what those give, and one by its id, a task id or an idempotency key. No page costs more with more generations.
 */
import { z } from 'zod';
import type { GenerationRecord } from '../../generation/record.js';
import { STATES } from '../../generation/states.js';
import type { Store } from '../../store/store.js';
import type { Hub } from '../../pipeline/context.js';
import { check } from '../bodies.js';
import { isGenerationId } from '../schemas.js';

export const PAGE_SIZE = 50;
/** There is no index by model: at most this many generations are read for one page, and the page links to the rest. */
export const LOOKED_AT_MOST = 2000;
const LOOK_CHUNK = 250;

const blank = (value: unknown) => (typeof value === 'string' && value.trim() === '' ? undefined : value);
const text = (max: number) => z.preprocess(blank, z.string().trim().max(max).optional());
/** `datetime-local` fields have no zone; the page says that they are in UTC. */
const instant = z.preprocess(
  blank,
  z
    .string()
    .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/, 'expected a date and a time, such as 2026-11-23T14:30')
    .optional(),
);

export const filterSchema = z.object({
  state: z.preprocess(blank, z.enum(STATES).optional()),
  tenant: text(128),
  model: text(64),
  from: instant,
  to: instant,
  q: text(512),
  before: z.preprocess(blank, z.string().refine(isGenerationId, 'expected the end of a page').optional()),
});

export type Filter = ReturnType<typeof readFilter>;

export const readFilter = (query: Record<string, string>) =>
  check(filterSchema, query, 'The generations cannot be listed');

export interface Found {
  readonly records: readonly GenerationRecord[];
  /** Where the next page begins; null at the end. */
  readonly cursor: string | null;
  /** How many were looked at. With a model that may be many more than were found. */
  readonly lookedAt: number;
}

const atOf = (local: string): number => Date.parse(`${local}Z`);

/** The records of these; what is gone meanwhile is left out. */
export async function load(store: Store, ids: readonly string[]): Promise<GenerationRecord[]> {
  const records = await Promise.all(ids.map((id) => store.get(id)));
  return records.filter((record) => record !== null);
}

/** One page, newest first. */
export async function findPage({ store }: Hub, filter: Filter): Promise<Found> {
  const { model, from, to, q: _q, before: _before, ...named } = filter;
  const where = {
    ...named,
    ...(from === undefined ? {} : { createdAfter: atOf(from) }),
    ...(to === undefined ? {} : { createdBefore: atOf(to) }),
  };
  const records: GenerationRecord[] = [];
  const limit = model === undefined ? PAGE_SIZE : LOOK_CHUNK;
  let { before } = filter;
  let lookedAt = 0;
  for (;;) {
    const page = await store.list({ ...where, limit, ...(before === undefined ? {} : { before }) });
    for (const record of await load(store, page.ids)) {
      lookedAt += 1;
      if (model === undefined || record.request.model === model) records.push(record);
      if (model !== undefined && records.length === PAGE_SIZE)
        return { records, cursor: record.id, lookedAt };
    }
    if (model === undefined || page.cursor === null || lookedAt >= LOOKED_AT_MOST)
      return { records, cursor: page.cursor, lookedAt };
    before = page.cursor;
  }
}

/**
 * The generation with this id, task id or idempotency key; null when there is none. A key belongs to a tenant: it is
 * looked for in the one that is given, else in `default`.
 */
export async function findOne({ store }: Hub, query: string, tenant = 'default'): Promise<string | null> {
  if (isGenerationId(query.toLowerCase()) && (await store.get(query.toLowerCase())))
    return query.toLowerCase();
  const [ofTask, ofKey] = await Promise.all([store.idOfTask(query), store.idOfKey(tenant, query)]);
  for (const id of [ofTask, ofKey]) if (id !== null && (await store.get(id))) return id;
  return null;
}
