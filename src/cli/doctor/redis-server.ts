/** The doctor's look at one Redis server, by what it says of itself; of a Cluster every master is looked at. */
import type { Config } from '../../config/config.js';
import { failed, ok, warning, type Finding } from './finding.js';

const MEMORY_WARNING_SHARE = 0.8;
/** What a generation takes until it is forgotten, rounded up (docs/performance.md) … */
const GENERATION_BYTES = 4000;
/** … and for how many there should be room: fewer are soon used up by any batch of orders. */
const ROOM_FOR_GENERATIONS = 10_000;

export interface Server {
  readonly name: string;
  /** A field of INFO; empty where the server does not tell. */
  readonly field: (name: string) => string;
  /** `appendfsync`; empty where the server does not tell, as managed ones may. */
  readonly appendfsync: string;
  /** `hash-max-listpack-value`, in bytes; null where the server does not tell. */
  readonly listpackValue: number | null;
}

const LEVELS = ['ok', 'warning', 'error'] as const;

/** What is found of several servers as one finding: the worst, and of whom it is true unless it is of all. */
export function ofAll(servers: readonly Server[], look: (server: Server) => Finding): Finding {
  const found = servers.map((server) => ({ server, finding: look(server) }));
  const worst = LEVELS.findLast((level) => found.some(({ finding }) => finding.level === level)) ?? 'ok';
  const such = found.filter(({ finding }) => finding.level === worst);
  const messages = [...new Set(such.map(({ finding }) => finding.message))];
  const [{ finding }] = such as [(typeof such)[0]];
  if (such.length === servers.length && messages.length === 1) return finding;
  const named = such.map(({ server, finding: { message } }) => `${server.name}: ${message}`);
  return { ...finding, message: named.join(' ') };
}

export function examineEviction({ field }: Server): Finding {
  const policy = field('maxmemory_policy');
  if (policy === '') return warning('eviction', 'the server does not tell. See that it is noeviction.');
  if (policy === 'noeviction') return ok('eviction', policy);
  return failed('eviction', `${policy} may throw paid generations away. Set maxmemory-policy noeviction.`);
}

const LOSES: Readonly<Record<string, string>> = {
  always: 'a crash loses nothing',
  everysec: 'a power loss can lose the last second; reelhaul brings back what it posted in it',
  no: 'a power loss can lose half a minute',
};

export function examinePersistence({ field, appendfsync }: Server): Finding {
  const about = 'persistence';
  if (field('aof_enabled') !== '1') {
    return warning(
      about,
      'the append-only file is off: a restart forgets generations that are paid for. Set appendonly yes.',
    );
  }
  if (field('aof_last_write_status') === 'err') {
    return failed(
      about,
      'the append-only file could not be written the last time. Look at the disk of Redis.',
    );
  }
  if (field('aof_last_bgrewrite_status') === 'err') {
    return warning(
      about,
      'the append-only file could not be written anew the last time, and grows. Look at disk and memory of Redis.',
    );
  }
  const loses = LOSES[appendfsync];
  const message = `the append-only file is on${loses ? `, appendfsync ${appendfsync}: ${loses}` : ''}`;
  return appendfsync === 'no' ? warning(about, `${message}. Set appendfsync everysec.`) : ok(about, message);
}

export function examineReplicas({ LEDGER_WAIT_REPLICAS: wanted }: Config, { field }: Server): Finding {
  const connected = Number(field('connected_slaves') || 0);
  if (connected >= wanted) return ok('replicas', `${connected} follow, ${wanted} are waited for`);
  return failed(
    'replicas',
    `LEDGER_WAIT_REPLICAS=${wanted}, and ${connected} follow: no submit will leave. Start them, or lower it.`,
  );
}

const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;

/** Records and jobs of this size are kept packed (docs/redis.md); nothing but memory depends on it. */
const LISTPACK_VALUE = 2048;

function packing({ listpackValue }: Server): string {
  return listpackValue === null || listpackValue >= LISTPACK_VALUE
    ? ''
    : `; hash-max-listpack-value is ${listpackValue}, with ${LISTPACK_VALUE} records take half the memory`;
}

export function examineMemory(server: Server): Finding {
  const { field } = server;
  const about = 'memory';
  const used = Number(field('used_memory'));
  const limit = Number(field('maxmemory'));
  if (limit === 0) {
    const resident = Number(field('used_memory_rss'));
    const machine = Number(field('total_system_memory'));
    if (machine === 0 || resident / machine <= MEMORY_WARNING_SHARE)
      return ok(about, `${megabytes(used)} used, no maxmemory set${packing(server)}`);
    return warning(
      about,
      `${megabytes(resident)} of the ${megabytes(machine)} of its machine used, no maxmemory set: Redis may be killed for it. Give it more memory, and set maxmemory.`,
    );
  }
  const room = Math.floor(Math.max(0, limit - used) / GENERATION_BYTES);
  const memory = `${megabytes(used)} of ${megabytes(limit)} used, room for about ${room} generations`;
  if (used / limit <= MEMORY_WARNING_SHARE && room >= ROOM_FOR_GENERATIONS)
    return ok(about, `${memory}${packing(server)}`);
  return warning(
    about,
    `${memory}: when it is full, Redis refuses writes. Raise maxmemory or lower RETENTION_MS.`,
  );
}
