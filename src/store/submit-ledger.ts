/**
 * Protects submits when Redis forgets: the ledger is what this process remembers of its latest POSTs. Redis may acknowledge a write and lose it all the same: the last
 * second of an append-only file, or what a replica had not received when it was promoted. A `submitting` that is lost
 * looks like `queued`, and would be paid for again. Against that:
 *
 * - before money is spent, the write can be awaited in the memory of replicas (`WAIT`) or on the disk (`WAITAOF`);
 * - this process remembers what it posted lately, and holds its submits still whenever Redis may have forgotten
 *   something, so that every process can bring back what it knows before any process posts.
 *
 * Which windows stay open is said in `docs/redis-faults.md`.
 */
import { RedisUnusableError } from '../errors.js';
import { essential, infoOf, mastersOf } from '../redis/check.js';
import { duplicateOnce, isCluster, type RedisConnection } from '../redis/connect.js';
import type { Keys } from './keys.js';

export interface DurabilitySettings {
  /** 0 (default): the master's word is enough. */
  readonly LEDGER_WAIT_REPLICAS: number;
  readonly LEDGER_WAIT_AOF: boolean;
  readonly LEDGER_WAIT_TIMEOUT_MS: number;
  readonly LEDGER_HOLD_MS: number;
  readonly SUBMIT_TIMEOUT_MS: number;
}

/** A paid POST that left this process, or was about to. */
export interface Post {
  readonly generationId: string;
  readonly nonce: string;
  /** Which try it was: a record that counts fewer has forgotten it. */
  readonly attempt: number;
  /** As its entry in the list of submits says. */
  readonly sentAt: number;
  /** Null until it was answered; false: it surely was not accepted. */
  taskId: string | false | null;
}

export interface Ledger {
  /** For how many milliseconds no submit may begin, since Redis may have forgotten some; 0: go. */
  holdMs(): number;
  /** Is the write of this nonce as durable as the settings ask? False also when that is not known. */
  isSafe(generationId: string, nonce: string): Promise<boolean>;
  /** The POST leaves now. */
  sent(post: Omit<Post, 'taskId'>): void;
  /** The id of its task; false: it surely was not accepted. */
  answered(nonce: string, taskId: string | false): void;
  close(): void;
}

export interface LedgerDeps {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly settings: DurabilitySettings;
  readonly now: () => number;
}

/** Longer than any Redis that is set up as it should be can forget, shorter than memory would matter. */
const FORGETS_AT_MOST_MS = 120_000;
/** How long posts are remembered: what an answer takes, and then as long as Redis may forget what it brought. */
export const rememberForMs = ({ SUBMIT_TIMEOUT_MS }: Pick<DurabilitySettings, 'SUBMIT_TIMEOUT_MS'>): number =>
  SUBMIT_TIMEOUT_MS + FORGETS_AT_MOST_MS;

const LOOK_AGAIN_MS = 500;

/**
 * READ_BACK. Is this nonce there on the server that answers now? Writes it once more, so that what is awaited behind it
 * on the same connection includes it, whichever connection wrote it first.
 * KEYS 1 record · ARGV 1 nonce
 * Returns 1 when it is there.
 */
const READ_BACK = `
if redis.call('HGET', KEYS[1], 'submitNonce') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'submitNonce', ARGV[1])
return 1
`;

/**
 * Is `LEDGER_WAIT_AOF` possible here? Only the server itself knows: forks count their versions differently.
 * @throws RedisUnusableError
 */
export async function checkLedger(
  redis: RedisConnection,
  { LEDGER_WAIT_AOF }: DurabilitySettings,
): Promise<void> {
  if (!LEDGER_WAIT_AOF) return;
  try {
    await Promise.all(mastersOf(redis).map((server) => server.call('WAITAOF', 1, 0, 1)));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new RedisUnusableError(
      `LEDGER_WAIT_AOF=true expects Redis or Valkey 7.2 or later with appendonly yes, got: ${message}. ` +
        'Without it, appendfsync always gives the same on any version.',
      { cause: error },
    );
  }
}

interface Question {
  readonly generationId: string;
  readonly nonce: string;
  readonly answer: (safe: boolean) => void;
}

/**
 * Asks whether writes have come far enough. WAIT blocks the connection it is sent on, so it has one of its own, and all
 * questions that come while one is under way share the next: a replica that is away costs each submit at most two
 * time-outs, and nothing else in this process any.
 */
function createWait({ redis, keys, settings }: LedgerDeps) {
  const {
    LEDGER_WAIT_REPLICAS: replicas,
    LEDGER_WAIT_AOF: aof,
    LEDGER_WAIT_TIMEOUT_MS: timeoutMs,
  } = settings;
  // No command is ever sent twice here: WAIT on a fresh connection has nothing to wait for and would say yes.
  const connection = duplicateOnce(redis);
  // The connection of the process says what there is to say of an outage.
  connection.on('error', () => {});
  let waiting: Question[] = [];
  let asking = false;

  async function ask(questions: readonly Question[]): Promise<boolean[]> {
    const line = connection.pipeline();
    for (const { generationId, nonce } of questions)
      line.eval(READ_BACK, 1, keys.record(generationId), nonce);
    if (replicas > 0) line.wait(replicas, timeoutMs);
    if (aof) line.call('WAITAOF', 1, 0, timeoutMs);
    const replies = (await line.exec()) ?? [];
    const reply = (i: number): unknown => {
      const [error, value] = replies[i] ?? [new Error('no reply'), null];
      return error ? null : value;
    };
    let next = questions.length;
    const enoughReplicas = replicas === 0 || Number(reply(next++) ?? 0) >= replicas;
    const onDisk = !aof || ((reply(next++) as readonly number[] | null)?.[0] ?? 0) >= 1;
    return questions.map((_, i) => enoughReplicas && onDisk && reply(i) === 1);
  }

  async function askAll(): Promise<void> {
    if (asking) return;
    asking = true;
    while (waiting.length > 0) {
      const questions = waiting;
      waiting = [];
      // What cannot be asked is not known, and what is not known is not safe.
      const safe = await ask(questions).catch(() => questions.map(() => false));
      for (const [i, { answer }] of questions.entries()) answer(safe[i] ?? false);
    }
    asking = false;
  }

  return {
    isSafe: (generationId: string, nonce: string) =>
      new Promise<boolean>((answer) => {
        waiting.push({ generationId, nonce, answer });
        void askAll();
      }),
    close: () => connection.disconnect(),
  };
}

/** While a Cluster is up, one of its masters may be replaced without a word to the connection: it is asked this often. */
const LOOK_EVERY_MS = 1000;

/**
 * SERVER. Which server answers for the keys of this prefix just now.
 * KEYS 1 any of them · Returns its run id, false when it does not tell.
 */
const SERVER = `return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or false`;

/** Null when the server does not tell; then every new connection counts as a new server. */
async function runIdOf(redis: RedisConnection, keys: Keys): Promise<string | null> {
  // INFO alone may be answered by any node of a Cluster; a script goes to the one that serves its key.
  if (isCluster(redis)) return (await redis.eval(SERVER, 1, keys.live)) as string | null;
  return /^run_id:(\w+)/m.exec(await infoOf(redis, 'server'))?.[1] ?? null;
}

/**
 * Opens the ledger of this process.
 * @param bringBack is called with all recent posts when Redis was restarted or another server took over.
 * @throws RedisUnusableError when a Cluster does not tell which of its servers answers.
 */
export async function openLedger(
  deps: LedgerDeps,
  bringBack: (posts: readonly Post[]) => Promise<void>,
): Promise<Ledger> {
  const { redis, keys, settings, now } = deps;
  const waits = settings.LEDGER_WAIT_REPLICAS > 0 || settings.LEDGER_WAIT_AOF ? createWait(deps) : null;
  const posts = new Map<string, Post>();
  const whoServes = () => runIdOf(redis, keys);
  let runId = await essential('EVAL and INFO', whoServes());
  if (runId === null && isCluster(redis)) {
    waits?.close();
    throw new RedisUnusableError(
      'Expected a Redis Cluster whose INFO gives a run_id, or a failover goes unseen.',
    );
  }
  /** Connections lost, and connections looked at: while they differ, it is not known what Redis forgot. */
  let losses = 0;
  let settled = 0;
  let holdUntil = 0;
  let looking = false;

  function forgetOld(): void {
    for (const [nonce, { sentAt }] of posts) {
      if (sentAt > now() - rememberForMs(settings)) return;
      posts.delete(nonce);
    }
  }

  async function look(): Promise<void> {
    const loss = losses;
    const current = await whoServes().catch(() => null);
    if (loss !== losses) return;
    if (current === null && isCluster(redis)) {
      losses += 1;
      return;
    }
    if (current === null || current !== runId) {
      runId = current;
      holdUntil = now() + settings.LEDGER_HOLD_MS;
      await bringBack([...posts.values()]);
    }
    if (loss === losses) settled = loss;
  }

  async function lookAgain(): Promise<void> {
    // No answer since the last time: another server may answer by now.
    if (looking) losses += 1;
    else {
      looking = true;
      await look();
      looking = false;
    }
  }

  /** The server that has the write is the one whose memory this process trusts. */
  async function isServedAsBefore(): Promise<boolean> {
    if ((await whoServes().catch(() => null)) === runId) return true;
    losses += 1;
    void lookAgain();
    return false;
  }

  const onClose = () => void (losses += 1);
  const onReady = () => void look();
  redis.on('close', onClose);
  redis.on('ready', onReady);
  const timer = isCluster(redis) ? setInterval(() => void lookAgain(), LOOK_EVERY_MS) : null;

  return {
    holdMs: () => (settled === losses ? Math.max(0, holdUntil - now()) : LOOK_AGAIN_MS),
    async isSafe(generationId, nonce) {
      if (waits && !(await waits.isSafe(generationId, nonce))) return false;
      return !isCluster(redis) || isServedAsBefore();
    },

    sent(post) {
      forgetOld();
      posts.set(post.nonce, { ...post, taskId: null });
    },
    answered(nonce, taskId) {
      const post = posts.get(nonce);
      if (post) post.taskId = taskId;
    },

    close() {
      redis.off('close', onClose);
      redis.off('ready', onReady);
      if (timer) clearInterval(timer);
      waits?.close();
    },
  };
}
