/**
 * The layout of the data under a prefix: which keys there are and what they hold. Data of another layout is refused, never
 * read and never changed: a process that guessed at it could submit again what is paid for.
 */
import { RedisUnusableError } from '../errors.js';
import { essential } from './check.js';
import { type RedisConnection } from './connect.js';

/** Raised when a process of before could not read, or would damage, what is written now. */
const LAYOUT = '1';

const keyOf = (prefix: string) => `${prefix}:layout`;
/** Keys of the layout before version 1; every process of then wrote the first one at its start. */
const formerKeys = (prefix: string) =>
  ['shards', 'line', 'line-clock', 'polls', 'polls-wake'].map((name) => `${prefix}:${name}`);

/**
 * CLAIM. Writes the layout where there is none; the data of before the first version had no such key.
 * KEYS 1 layout, then the keys of before · ARGV 1 our layout
 * Returns the layout that is there, or `former`.
 */
const CLAIM = `
local found = redis.call('GET', KEYS[1])
if found then return found end
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 'former' end
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
`;

/**
 * What is wrong with the layout under this prefix, and the ways on; null when it is ours. Writes it where none is.
 * @param former keys whose presence tells of the layout of before, where no layout is written.
 */
export async function layoutProblem(
  redis: RedisConnection,
  prefix: string,
  former: readonly string[] = [],
): Promise<string | null> {
  const keys = [keyOf(prefix), ...former];
  const found = String(await redis.eval(CLAIM, keys.length, ...keys, LAYOUT));
  if (found === LAYOUT) return null;
  const isNewer = Number(found) > Number(LAYOUT);
  const what = isNewer ? `layout ${found}, which a newer reelhaul wrote` : 'the layout of an older reelhaul';
  return (
    `the data under ${prefix} has ${what}; this one reads layout ${LAYOUT}. ` +
    (isNewer
      ? 'Upgrade reelhaul here, or set'
      : 'Let the version that wrote it finish its generations, then set') +
    ` another REDIS_PREFIX, or remove the keys that begin with ${prefix}:`
  );
}

/** @throws RedisUnusableError naming the prefix and the ways on. */
export async function checkLayout(redis: RedisConnection, prefix: string): Promise<void> {
  const problem = await essential(
    'EVAL, GET, SET and EXISTS',
    layoutProblem(redis, prefix, formerKeys(prefix)),
  );
  if (problem !== null) throw new RedisUnusableError(`This Redis cannot be used: ${problem}.`);
}
