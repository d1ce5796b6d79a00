/** Why a first connection failed, in words that say what to do. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { RedisUnusableError } from '../errors.js';
import { describeRedis, kindOf, type RedisSettings } from './address.js';

/** How the message of a server that never answers begins. */
export const SILENT = 'it takes connections and has not answered';

/** How long a server that turns a client away may take to say why. */
const FAREWELL_WITHIN_MS = 500;

/**
 * Why the server turns every client away, in its own words, such as `ERR max number of clients reached`; null when it
 * says nothing. It says so before it is asked anything, and ioredis hears only that the connection broke.
 */
export async function turnedAway(settings: RedisSettings): Promise<Error | null> {
  if (kindOf(settings) !== 'server' || !settings.REDIS_URL.startsWith('redis:')) return null;
  const { hostname, port } = new URL(settings.REDIS_URL);
  const socket = connect(Number(port || 6379), hostname.replace(/^\[|\]$/g, ''));
  try {
    const [chunk] = (await once(socket, 'data', {
      signal: AbortSignal.timeout(FAREWELL_WITHIN_MS),
    })) as [Buffer];
    const [, words] = /^-([^\r\n]+)/.exec(chunk.toString()) ?? [];
    return words === undefined ? null : new Error(words);
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

/** What to do depends on what was met: no server, one that does not know us, or something else altogether. */
export function unreachable(settings: RedisSettings, cause: unknown): RedisUnusableError {
  const said = cause instanceof Error ? cause.message || cause.name : String(cause);
  const kind = kindOf(settings);
  const isTls = settings.REDIS_URL.startsWith('rediss:');
  let advice =
    'Start one (apt install redis-server, brew install redis, or docker compose up redis) or set REDIS_URL.';
  if (said.startsWith(SILENT)) advice = 'It hangs, or is no Redis: look at its process, or set REDIS_URL.';
  else if (/^(NOAUTH|WRONGPASS|NOPERM)/.test(said)) advice = 'Check user and password in REDIS_URL.';
  else if (/max number of clients/.test(said))
    advice = 'Raise its maxclients, or close connections that are not needed (CLIENT LIST).';
  else if (/certificate|SSL|TLS/i.test(said) || (isTls && /ETIMEDOUT|ECONNRESET/.test(said))) {
    // A server without TLS waits for more of what it takes for a command.
    advice =
      'Check rediss:// in REDIS_URL, REDIS_TLS_CA_FILE, REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE;\n' +
      'REDIS_TLS_VERIFY=false accepts any certificate of Redis, and of nothing else.';
  } else if (/RESP type/.test(said)) advice = 'What answers there is not a Redis. Check REDIS_URL.';
  else if (kind === 'cluster') advice = 'Check REDIS_CLUSTER_NODES, and that the Cluster is up.';
  else if (kind === 'sentinel') {
    advice = 'Check REDIS_SENTINELS and REDIS_SENTINEL_NAME, and that one of them knows a master.';
  }
  const message = `${describeRedis(settings)} cannot be used: ${said.replace(/\.+$/, '')}. ${advice}`;
  return new RedisUnusableError(message, { cause });
}
