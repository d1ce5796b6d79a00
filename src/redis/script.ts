/**
 * Lua scripts. Each takes its keys and one JSON argument with named fields, which it reads by `cjson.decode(ARGV[1])`.
 * A field that says nothing is left out: Lua takes the `null` of JSON for a value that is true.
 */
import type { RedisConnection } from './connect.js';

type Script<Reply> = (keys: readonly string[], argument?: object) => Promise<Reply>;

/** @param name of the command; one for each script of the process */
export function defineScript<Reply>(redis: RedisConnection, name: string, lua: string): Script<Reply> {
  redis.defineCommand(name, { lua });
  const commands = redis as unknown as Record<string, (...args: (string | number)[]) => Promise<Reply>>;
  return (keys, argument = {}) => commands[name]!(keys.length, ...keys, JSON.stringify(argument));
}
