/** The doctor's look at Redis: what it is, whether it keeps what it is given, and whether workers are at work on it. */
import type { Logger } from 'pino';
import type { Config } from '../../config/config.js';
import { checkLedger } from '../../store/submit-ledger.js';
import { checkLayout } from '../../redis/layout.js';
import { clockProblem } from '../../redis/worker-hold.js';
import { STAGES } from '../../generation/states.js';
import { countWorkers } from '../../telemetry/presence.js';
import { createKeys } from '../../store/keys.js';
import { within } from '../../outbound/limit.js';
import { checkRedis, infoOf, mastersOf } from '../../redis/check.js';
import { connectRedis, describeRedis, type RedisConnection } from '../../redis/connect.js';
import { failed, ok, reasonOf, warning, type Finding } from './finding.js';
import {
  examineEviction,
  examineMemory,
  examinePersistence,
  examineReplicas,
  ofAll,
  type Server,
} from './redis-server.js';

/** Longer than a connection may take, of which more is known. */
const TIMEOUT_MS = 15_000;
const CLOCK_SKEW_WORTH_TELLING_MS = 1000;
/** A sweep comes every interval; several missed ones mean that no worker runs. */
const SWEEP_LATE_FACTOR = 10;

export async function examineRedis(config: Config, log: Logger): Promise<Finding[]> {
  const connecting = connectRedis(config, 'producer', log);
  const examining = connecting.then(
    (redis) => examineConnected(redis, config).finally(() => redis.disconnect()),
    (error: unknown) => [failed('Redis', reasonOf(error))],
  );
  const found = await within(TIMEOUT_MS, examining);
  if (found !== null) return found;
  void connecting.then(
    (redis) => redis.disconnect(),
    () => {},
  );
  const begun = `${describeRedis(config)} began to answer, and did not end within ${TIMEOUT_MS / 1000} s`;
  return [failed('Redis', `${begun}: it hangs, or is very busy. Look at its process and its SLOWLOG.`)];
}

async function examineConnected(redis: RedisConnection, config: Config): Promise<Finding[]> {
  try {
    const clock = await examineClock(redis);
    const servers = await readServers(redis);
    return [
      await examineServer(redis, config, servers),
      ofAll(servers, examineEviction),
      ofAll(servers, examinePersistence),
      ...(config.LEDGER_WAIT_REPLICAS === 0
        ? []
        : [ofAll(servers, (server) => examineReplicas(config, server))]),
      ...(await examineLedger(redis, config)),
      clock,
      ofAll(servers, examineMemory),
      await examineSweep(redis, config),
    ];
  } catch (error) {
    return [failed('Redis', `${describeRedis(config)}: ${reasonOf(error)}. ${adviceFor(error)}`)];
  }
}

const adviceFor = (error: unknown) =>
  reasonOf(error).startsWith('NOPERM')
    ? 'Give its user the rights that docs/redis.md lists.'
    : 'Look at its log, and that it stays reachable.';

async function readServers(redis: RedisConnection): Promise<Server[]> {
  return Promise.all(
    mastersOf(redis).map(async (server) => {
      const info = await infoOf(server);
      // Managed servers may refuse the question, and so may the rights of our user.
      const ask = async (name: string) =>
        ((await server.call('CONFIG', 'GET', name).catch(() => [])) as string[])[1] ?? '';
      // By its name before Redis 7, which later versions know as well.
      const listpack = await ask('hash-max-ziplist-value');
      const { host, port } = server.options;
      return {
        name: `${host}:${port}`,
        field: (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '',
        appendfsync: await ask('appendfsync'),
        listpackValue: listpack === '' ? null : Number(listpack),
      };
    }),
  );
}

async function examineServer(
  redis: RedisConnection,
  config: Config,
  servers: readonly Server[],
): Promise<Finding> {
  try {
    await checkRedis(redis, config.REDIS_PREFIX);
    await checkLayout(redis, config.REDIS_PREFIX);
    if (config.REDIS_URL.startsWith('rediss:') && !config.REDIS_TLS_VERIFY)
      return warning(
        'Redis',
        `${describeRedis(config)}: its certificate is not checked (REDIS_TLS_VERIFY=false).`,
      );
    const versions = [...new Set(servers.map(({ field }) => field('redis_version')))].join(', ');
    return ok('Redis', `${describeRedis(config)}: version ${versions}, took a write`);
  } catch (error) {
    return failed('Redis', reasonOf(error));
  }
}

/** What is awaited before money is spent, and cannot be had, lets no worker start. */
async function examineLedger(redis: RedisConnection, config: Config): Promise<Finding[]> {
  if (!config.LEDGER_WAIT_AOF) return [];
  try {
    await checkLedger(redis, config);
    return [ok('ledger', 'what is about to be paid for is on the disk of Redis first (LEDGER_WAIT_AOF)')];
  } catch (error) {
    return [failed('ledger', `${reasonOf(error)} Set LEDGER_WAIT_AOF=false, or change Redis.`)];
  }
}

async function examineClock(redis: RedisConnection): Promise<Finding> {
  const askedAt = Date.now();
  let time: readonly (number | string)[];
  try {
    time = await redis.time();
  } catch (error) {
    return warning('clock', `cannot be compared with that of Redis: ${reasonOf(error)}. Allow TIME.`);
  }
  const answeredAt = Date.now();
  const [seconds, microseconds] = time;
  const skewMs = Math.round(
    Number(seconds) * 1000 + Number(microseconds) / 1000 - (askedAt + answeredAt) / 2,
  );
  if (Math.abs(skewMs) <= CLOCK_SKEW_WORTH_TELLING_MS) {
    return ok('clock', `${skewMs} ms beside that of Redis, which answered in ${answeredAt - askedAt} ms`);
  }
  const problem = clockProblem(-skewMs);
  return problem === null
    ? warning(
        'clock',
        `${skewMs} ms beside that of Redis. Use NTP: a worker with a wrong clock takes no jobs.`,
      )
    : failed('clock', `${problem}: a worker here takes no jobs. Set it, or that of Redis, with NTP.`);
}

/** Workers announce their stages; before the first one, nothing is wrong. */
async function examineSweep(redis: RedisConnection, config: Config): Promise<Finding> {
  const sweptAt = await redis.get(createKeys(config.REDIS_PREFIX).swept);
  if (sweptAt === null) return ok('workers', `none has finished a sweep under ${config.REDIS_PREFIX} yet`);
  const [seconds] = await redis.time();
  const atMs = Number(seconds) * 1000;
  const workers = await countWorkers({ redis, keys: createKeys(config.REDIS_PREFIX), now: () => atMs });
  const without = STAGES.filter((stage) => workers[stage] === 0);
  if (without.length > 0)
    return warning('workers', `no worker runs ${without.join(', ')}. Start one: reelhaul worker.`);
  const agoMs = Date.now() - Number(sweptAt);
  const message = `the last sweep ended ${Math.round(agoMs / 1000)} s ago`;
  return agoMs <= SWEEP_LATE_FACTOR * config.SWEEP_INTERVAL_MS
    ? ok('workers', message)
    : warning('workers', `${message}: no worker seems to run. Start one: reelhaul worker.`);
}
