/**
 * An agent for links that come from outside: it connects only to addresses which were checked (`address-rules.ts`), and
 * the addresses that were checked are the ones connected to, so a name cannot change its answer in between.
 * `request-filtering-agent` checks them a second time at the socket, so that a mistake in our table alone opens nothing.
 */
import { lookup } from 'node:dns/promises';
import { isIP, type LookupFunction } from 'node:net';
import { RequestFilteringHttpAgent, RequestFilteringHttpsAgent } from 'request-filtering-agent';
import { asError } from '../errors.js';
import { isPublicAddress, translatedIPv4, type AllowedHosts } from './address-rules.js';
import { shown } from './link.js';

/** One address of a host. */
export interface ResolvedAddress {
  readonly address: string;
  readonly family: number;
}

/** DNS as the system does it. */
export const resolveBySystem = (hostname: string): Promise<readonly ResolvedAddress[]> =>
  lookup(hostname, { all: true });

export interface GuardOptions {
  readonly allowed: AllowedHosts;
  /** Public hosts need an entry too. */
  readonly onlyAllowed: boolean;
  /** The variable that holds the entries, for the message of a refusal. */
  readonly setting: string;
  /** DNS; all addresses of a name. */
  readonly resolve: (hostname: string) => Promise<readonly ResolvedAddress[]>;
  /** Ends the waiting for DNS. */
  readonly signal: AbortSignal;
  /** Keep connections for later requests by the same agent. Default false. */
  readonly keepAlive?: boolean;
  /** The operator configured this very host: it may be private. Default false. */
  readonly trusted?: boolean;
}

export type GuardedAgent = RequestFilteringHttpAgent | RequestFilteringHttpsAgent;

/** Agents that are kept for a while, so that the next request to the same host finds a connection. */
export interface KeptAgents {
  /** `trusted` as in `GuardOptions`. @throws HostRefusedError; what `resolve` throws; the signal's reason. */
  agentFor(url: URL, signal: AbortSignal, trusted?: boolean): Promise<GuardedAgent>;
  /** Closes all connections. */
  close(): void;
}

/** A name is resolved and checked anew after so long; connections that were made meanwhile are kept no longer. */
const KEEP_MS = 30_000;

/**
 * This host may not be connected to. The message is for everyone, tenants included, and says nothing of addresses;
 * `detail` is for the operator's log.
 */
export class HostRefusedError extends Error {
  readonly detail: string;
  constructor(message: string, detail: string) {
    super(message);
    this.detail = detail;
  }
}

/**
 * Resolves and checks the host of `url`; the agent is for requests to it, and for no other.
 * @throws HostRefusedError; what `resolve` throws; the signal's reason.
 */
export async function guardedAgent(
  url: URL,
  { allowed, onlyAllowed, setting, resolve, signal, keepAlive = false, trusted = false }: GuardOptions,
): Promise<GuardedAgent> {
  const secure = url.protocol === 'https:';
  const hostname = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port) || (secure ? 443 : 80);

  const family = isIP(hostname);
  const resolved =
    family === 0 ? await untilAborted(signal, resolve(hostname)) : [{ address: hostname, family }];
  const namedByUser = trusted || allowed.coversName(hostname, port);
  const covered = resolved.filter(({ address }) => allowed.coversAddress(address, port));
  // A name with several addresses, of which the user opened some: only those are used.
  const usable = namedByUser || covered.length === 0 ? resolved : covered;
  if (!namedByUser && covered.length === 0) {
    const refused = resolved.find(({ address }) => !isPublicAddress(address));
    if (refused !== undefined || onlyAllowed) {
      const message = `${shown(url)} is refused: this host may not be reached. ${setting} opens hosts.`;
      const address = refused === undefined ? 'is not among the allowed hosts' : `is at ${refused.address}`;
      throw new HostRefusedError(message, `${url.host} ${address}`);
    }
  }
  if (usable.length === 0) throw new Error('the host name has no address');

  const pinned: LookupFunction = (_hostname, { all }, callback) => {
    if (all === true) callback(null, [...usable]);
    else callback(null, usable[0]!.address, usable[0]!.family);
  };
  const settings = {
    keepAlive,
    lookup: pinned,
    allowPrivateIPAddress: namedByUser,
    allowMetaIPAddress: namedByUser,
    // It refuses every NAT64 address; those that were found public here pass.
    allowIPAddressList: [...covered, ...usable.filter(isTranslated)].map(({ address }) => address),
  };
  return secure ? new RequestFilteringHttpsAgent(settings) : new RequestFilteringHttpAgent(settings);
}

const isTranslated = ({ address }: ResolvedAddress): boolean =>
  translatedIPv4(address) !== null && isPublicAddress(address);

export function keepGuardedAgents(
  guard: Omit<GuardOptions, 'signal' | 'keepAlive'>,
  now: () => number,
): KeptAgents {
  const kept = new Map<string, { readonly agent: GuardedAgent; readonly madeAt: number }>();

  /** Requests under way go on; nothing is kept behind them. */
  function retire(agent: GuardedAgent): void {
    (agent as unknown as { keepAlive: boolean }).keepAlive = false;
    for (const sockets of Object.values(agent.freeSockets))
      for (const socket of sockets ?? []) socket.destroy();
  }

  function forgetOld(): void {
    for (const [origin, { agent, madeAt }] of kept) {
      if (madeAt > now() - KEEP_MS) return;
      kept.delete(origin);
      retire(agent);
    }
  }

  return {
    async agentFor(url, signal, trusted = false) {
      forgetOld();
      const name = `${trusted ? 'trusted ' : ''}${url.origin}`;
      const known = kept.get(name);
      if (known) return known.agent;
      const agent = await guardedAgent(url, { ...guard, signal, keepAlive: true, trusted });
      const meanwhile = kept.get(name);
      if (meanwhile) return meanwhile.agent;
      kept.set(name, { agent, madeAt: now() });
      return agent;
    },
    close() {
      for (const { agent } of kept.values()) agent.destroy();
      kept.clear();
    },
  };
}

/** The promise, or a rejection as soon as the signal aborts. */
function untilAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(asError(signal.reason));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
