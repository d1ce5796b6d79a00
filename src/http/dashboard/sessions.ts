/**
 * Sessions and accounts of the dashboard. A session is a random id in a cookie; what it stands for is in Redis under the
 * id's digest, so that every replica knows it, logging out ends it everywhere, and a reader of Redis cannot use it. It
 * is bound to the password it was opened with, by scrypt: a new password ends it, and guessing the password from what is in
 * Redis is slow.
 */
import {
  createHash,
  createHmac,
  randomBytes,
  scrypt,
  timingSafeEqual,
  type ScryptOptions,
} from 'node:crypto';
import { promisify } from 'node:util';
import type { Context } from 'hono';
import type { Config } from '../../config/config.js';
import type { Hub } from '../../pipeline/context.js';
import { refusalOf } from '../../redis/connect.js';
import { afterRefusal } from '../../redis/write-errors.js';
import { createClientAddress, networkOf } from '../client-address.js';
import { createCounting } from '../counting.js';

/** A session ends after this long without a request. */
const IDLE_MS = 12 * 3_600_000;
/** A session ends after this long in any case. */
export const LONGEST_MS = 7 * 24 * 3_600_000;

/** After a refusal: each write to a replica (`READONLY`) makes ioredis reconnect, which breaks the reads of other requests. */
const NOT_PROLONGED_MS = 1000;

/**
 * Tries per minute from one address; and from one address while an account was tried so often from all of them together.
 * An account is never closed: the right password from an address that has not guessed works all the while.
 */
const TRIES_PER_ADDRESS = 10;
const TRIES_PER_ACCOUNT = 100;
const TRIES_PER_ADDRESS_THEN = 1;
/** Derives what stands in Redis from a password: about 50 ms and 16 MiB a guess. */
const SCRYPT: ScryptOptions = { N: 16_384, r: 8, p: 1 };

export interface Account {
  readonly user: string;
  /** False: may look, and change nothing. */
  readonly mayAct: boolean;
  /** Changes with the password. */
  readonly fingerprint: Promise<string>;
  /** Of `user:password`. */
  readonly digest: Buffer;
}

export interface Session {
  readonly account: Account;
  /** What forms of this session carry. */
  readonly csrf: string;
}

export interface Sessions {
  readonly accounts: readonly Account[];
  /** The account of these credentials; all are compared, in constant time. */
  findAccount(user: string, password: string): Account | null;
  /** @returns the id for the cookie */
  open(account: Account): Promise<string>;
  find(id: string): Promise<Session | null>;
  end(id: string): Promise<void>;
  /** Counts a try to log in as this user. @returns how many seconds to wait first; 0: it may be made */
  countTry(c: Context, user: string): Promise<number>;
  /** It succeeded, and is not held against address and account. */
  forgiveTry(c: Context, user: string): Promise<void>;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();

const derive = promisify<string, string, number, ScryptOptions, Buffer>(scrypt);

function accountOf(prefix: string, user: string, password: string, mayAct: boolean): Account {
  const fingerprint = derive(password, `${prefix}:${user}`, 32, SCRYPT).then((key) => key.toString('hex'));
  return { user, mayAct, fingerprint, digest: sha256(`${user}:${password}`) };
}

/** The accounts that are configured; empty: there is no login, and only this machine has access. */
export function accountsOf(config: Config): Account[] {
  const { DASHBOARD_USER, DASHBOARD_PASSWORD, DASHBOARD_VIEWER_USER, DASHBOARD_VIEWER_PASSWORD } = config;
  const { REDIS_PREFIX: prefix } = config;
  return [
    ...(DASHBOARD_USER === '' ? [] : [accountOf(prefix, DASHBOARD_USER, DASHBOARD_PASSWORD, true)]),
    ...(DASHBOARD_VIEWER_USER === ''
      ? []
      : [accountOf(prefix, DASHBOARD_VIEWER_USER, DASHBOARD_VIEWER_PASSWORD, false)]),
  ];
}

/** The token for forms of this session: as long as the session, and no way back to its id. */
export const csrfOf = (secret: string | Buffer): string =>
  createHmac('sha256', secret).update('csrf').digest('base64url');

export function createSessions({ redis, config, now }: Hub): Sessions {
  const accounts = accountsOf(config);
  const counting = createCounting(redis, now);
  const prefix = `${config.REDIS_PREFIX}:dashboard`;
  const keyOf = (id: string) => `${prefix}:session:${sha256(id).toString('hex')}`;
  const client = createClientAddress(config);
  const triesFrom = (c: Context) => `${prefix}:tries:from:${networkOf(client.of(c))}`;
  // All names that no account has share one count.
  const triesAs = (user: string) => {
    const at = accounts.findIndex((account) => account.user === user);
    return `${prefix}:tries:as:${at}`;
  };

  let refusedAt = -Infinity;

  /** A session that cannot be prolonged stays valid: an operator looks here because Redis takes no writes. */
  async function readAndKeep(key: string): Promise<string | null> {
    if (now() - refusedAt < NOT_PROLONGED_MS) return redis.get(key);
    try {
      return await redis.getex(key, 'PX', IDLE_MS);
    } catch (error) {
      if (!(error instanceof Error) || refusalOf(error) === null) throw error;
      refusedAt = now();
      await afterRefusal(redis);
      return redis.get(key);
    }
  }

  return {
    accounts,

    findAccount(user, password) {
      const presented = sha256(`${user}:${password}`);
      let found: Account | null = null;
      for (const account of accounts) if (timingSafeEqual(account.digest, presented)) found = account;
      return found;
    },

    async open({ user, fingerprint }) {
      const id = randomBytes(32).toString('base64url');
      const session = JSON.stringify({ user, fingerprint: await fingerprint, openedAt: now() });
      await redis.set(keyOf(id), session, 'PX', IDLE_MS);
      return id;
    },

    async find(id) {
      const text = await readAndKeep(keyOf(id));
      if (text === null) return null;
      const { user, fingerprint, openedAt } = JSON.parse(text) as Record<string, unknown>;
      const account = accounts.find((one) => one.user === user);
      if (!account || (await account.fingerprint) !== fingerprint || now() - Number(openedAt) > LONGEST_MS)
        return null;
      return { account, csrf: csrfOf(id) };
    },

    async end(id) {
      await redis.unlink(keyOf(id));
    },

    async countTry(c, user) {
      const [from, as] = await Promise.all([counting.add(triesFrom(c)), counting.add(triesAs(user))]);
      const allowed = as.count <= TRIES_PER_ACCOUNT ? TRIES_PER_ADDRESS : TRIES_PER_ADDRESS_THEN;
      return from.count <= allowed ? 0 : from.waitSeconds;
    },

    async forgiveTry(c, user) {
      await Promise.all([counting.takeBack(triesFrom(c)), counting.takeBack(triesAs(user))]);
    },
  };
}
