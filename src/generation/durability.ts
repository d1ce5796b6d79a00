/**
 * How much of the ledger survives when Redis forgets. Redis may acknowledge a write and lose it all the same: the last
 * second of an append-only file, or what a replica had not received when it was promoted. A `submitting` that is lost
 * looks like `queued`, and would be paid for again. Against that:
 *
 * - before money is spent, the write can be awaited in the memory of replicas (`WAIT`) or on the disk (`WAITAOF`);
 * - this process remembers what it posted lately, and holds its submits still whenever Redis may have forgotten
 *   something, so that every process can bring back what it knows before anybody posts anything.
 *
 * Which windows stay open is said in `docs/redis-faults.md`.
 */
import type { Redis } from 'ioredis';
import { RedisUnusableError } from '../errors.js';
import type { Keys } from './keys.js';

export interface DurabilitySettings {
  /** 0 (default): the master's word is enough. */
  readonly LEDGER_WAIT_REPLICAS: number;
  readonly LEDGER_WAIT_AOF: boolean;
  readonly LEDGER_WAIT_TIMEOUT_MS: number;
  readonly LEDGER_HOLD_MS: number;
}

/** A paid POST that left this process, or was about to. */
export interface Post {
  readonly generationId: string;
  readonly nonce: string;
  /** Which try it was: a record that counts fewer has forgotten it. */
  readonly attempt: number;
  readonly sentAt: number;
  /** Null until it was answered. */
  taskId: string | null;
}

export interface Ledger {
  /** For how many milliseconds no submit may begin, since Redis may have forgotten some; 0: go. */
  holdMs(): number;
  /** Has the write of this nonce come as far as the settings ask? False also when nobody can tell. */
  isSafe(generationId: string, nonce: string): Promise<boolean>;
  /** The POST leaves now. */
  sent(post: Omit<Post, 'sentAt' | 'taskId'>): void;
  accepted(nonce: string, taskId: string): void;
  /** Surely not accepted: nothing is lost with it. */
  notAccepted(nonce: string): void;
  close(): void;
}

export interface LedgerDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly settings: DurabilitySettings;
  readonly now: () => number;
}

/** Longer than any Redis that is set up as it should be can forget, shorter than memory would matter. */
const REMEMBER_MS = 120_000;
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
export async function checkLedger(redis: Redis, { LEDGER_WAIT_AOF }: DurabilitySettings): Promise<void> {
  if (!LEDGER_WAIT_AOF) return;
  try {
    await redis.call('WAITAOF', 1, 0, 1);
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
  const connection = redis.duplicate({ maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false });
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

/** Null when the server does not tell; then every new connection counts as a new server. */
async function runIdOf(redis: Redis): Promise<string | null> {
  return /^run_id:(\w+)/m.exec(await redis.info('server'))?.[1] ?? null;
}

/**
 * Opens the ledger of this process.
 * @param bringBack is called with all recent posts when Redis was restarted or another server took over.
 */
export async function openLedger(
  deps: LedgerDeps,
  bringBack: (posts: readonly Post[]) => Promise<void>,
): Promise<Ledger> {
  const { redis, settings, now } = deps;
  const waits = settings.LEDGER_WAIT_REPLICAS > 0 || settings.LEDGER_WAIT_AOF ? createWait(deps) : null;
  const posts = new Map<string, Post>();
  let runId = await runIdOf(redis);
  /** Connections lost, and connections looked at: while they differ, nobody knows what Redis forgot. */
  let losses = 0;
  let settled = 0;
  let holdUntil = 0;

  function forgetOld(): void {
    for (const [nonce, { sentAt }] of posts) {
      if (sentAt > now() - REMEMBER_MS) return;
      posts.delete(nonce);
    }
  }

  async function look(): Promise<void> {
    const loss = losses;
    const current = await runIdOf(redis).catch(() => null);
    if (loss !== losses) return;
    if (current === null || current !== runId) {
      runId = current;
      holdUntil = now() + settings.LEDGER_HOLD_MS;
      await bringBack([...posts.values()]);
    }
    if (loss === losses) settled = loss;
  }

  const onClose = () => void (losses += 1);
  const onReady = () => void look();
  redis.on('close', onClose);
  redis.on('ready', onReady);

  return {
    holdMs: () => (settled === losses ? Math.max(0, holdUntil - now()) : LOOK_AGAIN_MS),
    isSafe: (generationId, nonce) => waits?.isSafe(generationId, nonce) ?? Promise.resolve(true),

    sent(post) {
      forgetOld();
      posts.set(post.nonce, { ...post, sentAt: now(), taskId: null });
    },
    accepted(nonce, taskId) {
      const post = posts.get(nonce);
      if (post) post.taskId = taskId;
    },
    notAccepted: (nonce) => void posts.delete(nonce),

    close() {
      redis.off('close', onClose);
      redis.off('ready', onReady);
      waits?.close();
    },
  };
}
