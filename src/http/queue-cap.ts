/**
 * How much of a tenant may wait for its submit, at the door of the API: so many generations, and about so many bytes of
 * Redis. Without it one tenant fills Redis for all with orders scheduled for next year.
 *
 * The bytes are estimated from a random sample, so that no counter has to be kept in step with every change of state.
 */
import type { Hub } from '../pipeline/context.js';
import { HttpError } from './problems.js';

const SAMPLE = 40;
/** About the largest record that an order makes; below so many of them the bytes cannot be over the cap. */
const LARGEST_BYTES = 128 * 1024;
const TRY_AGAIN_SECONDS = 60;

const full = (detail: string) =>
  new HttpError(429, 'queue_full', detail, { 'retry-after': String(TRY_AGAIN_SECONDS) });

export type QueueCap = (tenant: string) => Promise<HttpError | null>;

/** @returns what says why no more is taken of a tenant now; null when there is room */
export function createQueueCap({ redis, store: { keys }, config }: Hub): QueueCap {
  const { API_MAX_QUEUED: most, API_MAX_QUEUED_BYTES: mostBytes } = config;

  async function bytesOf(queued: string, count: number): Promise<number> {
    const places = Array.from({ length: SAMPLE }, () => Math.floor(Math.random() * count));
    const ids = (
      await Promise.all(places.map((place) => redis.zrange(queued, `${place}`, `${place}`)))
    ).flat();
    const sizes = await Promise.all(
      ids.map(async (id) => Buffer.byteLength((await redis.hvals(keys.record(id))).join(''))),
    );
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    return sizes.length === 0 ? 0 : (bytes / sizes.length) * count;
  }

  return async (tenant) => {
    const queued = keys.tenantState(tenant, 'queued');
    const count = most > 0 || mostBytes > 0 ? await redis.zcard(queued) : 0;
    if (most > 0 && count >= most) return full(`Expected at most ${most} queued generations of one tenant.`);
    if (mostBytes === 0 || count * LARGEST_BYTES < mostBytes) return null;
    return (await bytesOf(queued, count)) < mostBytes
      ? null
      : full(`Expected queued generations of one tenant to take at most ${mostBytes} bytes.`);
  };
}
