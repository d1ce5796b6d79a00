/**
 * Which shard a generation belongs to. With `REDIS_SHARDS=n` generations are spread over n key prefixes, each with a hash
 * tag of its own, so that a Redis Cluster shares their load. The shard can be read from the id alone: its last two digits,
 * which are random in a UUIDv7, modulo n. A generation with an idempotency key gets an id whose shard follows from tenant
 * and key, so that asking again finds the same one.
 */

/** As many as can be told apart evenly enough by two hexadecimal digits. */
export const MOST_SHARDS = 16;

const SLOTS = 16_384;

export function shardOf(id: string, shards: number): number {
  const last = Number.parseInt(id.slice(-2), 16);
  // What is no id of ours is in no shard, and is not found in the first one either.
  return Number.isNaN(last) ? 0 : last % shards;
}

/** FNV-1a, 32 bits: spreads evenly, and is the same in every process and version. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  // Its low bits are its weak ones.
  return (hash ^ (hash >>> 16)) >>> 0;
}

export function shardOfKey(tenant: string, idempotencyKey: string, shards: number): number {
  return hashOf(`${tenant.length}:${tenant}:${idempotencyKey}`) % shards;
}

/** The same id, moved to that shard by its last two digits. */
export function idInShard(id: string, shard: number, shards: number): string {
  const last = Number.parseInt(id.slice(-2), 16);
  const place = Math.floor(last / shards) * shards + shard;
  const fits = place < 256 ? place : place - shards;
  return id.slice(0, -2) + fits.toString(16).padStart(2, '0');
}

/** CRC16 (XMODEM), as a Redis Cluster takes it of a hash tag. */
function slotOf(tag: string): number {
  let crc = 0;
  for (const byte of new TextEncoder().encode(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) >>> 0) & 0xffff;
  }
  return crc % SLOTS;
}

/** How far from the middle of its part a tag may lie, as a share of that part. */
const OFF_THE_MIDDLE = 1 / 8;

/**
 * The key prefix of a shard: one shard keeps the prefix as it is. Of several, each has a tag whose slot lies in the middle
 * of its own n-th of all slots: masters that share the slots evenly then share the shards as evenly as can be.
 */
export function shardPrefix(prefix: string, shard: number, shards: number): string {
  if (shards === 1) return prefix;
  const [, before = '', name = '', after = ''] = /^(.*)\{(.*)\}(.*)$/.exec(prefix) ?? [];
  for (let attempt = 0; ; attempt++) {
    const tag = `${name}:${shard}${attempt === 0 ? '' : `.${attempt}`}`;
    const place = (slotOf(tag) * shards) / SLOTS;
    if (Math.abs(place - shard - 0.5) <= OFF_THE_MIDDLE) return `${before}{${tag}}${after}`;
  }
}

/** Every prefix under which there are keys; the first is that of the whole. */
export function prefixesOf(prefix: string, shards: number): readonly string[] {
  if (shards === 1) return [prefix];
  return [prefix, ...Array.from({ length: shards }, (_, shard) => shardPrefix(prefix, shard, shards))];
}

/** This shard's part of a whole number: all parts together are exactly that. */
export function shareOfCount(total: number, shard: number, shards: number): number {
  return Math.floor(total / shards) + (shard < total % shards ? 1 : 0);
}

/** This shard's part of an amount: all parts together are never more. */
export function shareOfAmount(total: number, shards: number): number {
  return Math.floor(Math.round(total * 1e6) / shards) / 1e6;
}
