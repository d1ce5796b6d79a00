/** What a simulator can be started with, and what a started one can do. */
import type { Rates } from './faults.js';
import type { Ledger, LedgerSubmit } from './ledger.js';
import type { RateLimit } from './limits.js';
import type { AssetName } from './media.js';
import type { Outage } from './outages.js';

/** Durations around a median, log-normal as real tasks are. */
export interface DurationSpread {
  readonly medianMs: number;
  /** Deviation of the logarithm; 0.4 means that two of three lie between 0.67 and 1.5 medians. Default 0.4. */
  readonly sigma?: number;
  /** Longer ones are cut to this. Default: 10 medians. */
  readonly maxMs?: number;
}

export interface SimulatorOptions {
  /** Default 127.0.0.1: other machines cannot reach it. */
  readonly host?: string;
  /** Default 0: any free one. */
  readonly port?: number;
  /** Decides ids, durations and random faults. Default 1. */
  readonly seed?: number;
  /** The key that submits and polls must bring (401 otherwise). Default null: any or none will do. */
  readonly apiKey?: string | null;
  /** From acceptance to the end of a task without a `duration` directive. Default 2,000 ms. */
  readonly taskDurationMs?: number | DurationSpread;
  /** How often each random fault strikes. Default: never. */
  readonly rates?: Rates;
  /** Directives for every generation, over the random faults and under its own. Default none. */
  readonly script?: string;
  /** Added to every callback. Default 0. */
  readonly callbackDelayMs?: number;
  /**
   * Hosts that callbacks may be posted to, `*` for any. Default: this machine only, so that a placeholder URL does not
   * make a local simulator call the internet.
   */
  readonly callbackHosts?: readonly string[];
  /** Unfinished tasks from which on a submit is answered 429. Default: no limit. */
  readonly maxInFlight?: number | null;
  /** Submits (with `polls` also polls) admitted per window; more are answered 429 with `Retry-After`. Default: no limit. */
  readonly rateLimit?: RateLimit | null;
  /** The clock, in epoch ms; timers stay real. Default `Date.now`. */
  readonly now?: () => number;
  /** Called for every submit, bad script and internal fault. */
  readonly log?: (event: string, fields: Readonly<Record<string, unknown>>) => void;
}

export interface Simulator {
  /** `http://127.0.0.1:<port>`, without a slash at the end: what goes into `COMETAPI_BASE_URL`. */
  readonly url: string;
  readonly port: number;
  /** The same service on another port: where `redirect:other-port` and `asset-host=other-port` lead. */
  readonly otherPort: number;
  /** A copy of the ledger as it is now. */
  ledger(): Ledger;
  /** Checksum of a file as it should arrive, hex. Seconds for a synthetic file of gigabytes. */
  expectedSha256(taskId: string, asset: AssetName): Promise<string>;
  /** Replaces all rates; generations already seen keep what they drew. */
  setRates(rates: Rates): void;
  /** Replaces the directives for every generation. */
  setScript(text: string): void;
  /** Forgets all tasks and generations, and clears the ledger. Open connections go on. */
  reset(): void;
  /** The provider is away for a time; `refuse` closes the port itself. Resolves when it has begun. */
  startOutage(outage: Outage): Promise<void>;
  endOutage(): Promise<void>;
  /** Waits until `condition` gives something other than null, undefined or false. Default time-out 10 s. */
  waitUntil<T>(condition: (ledger: Ledger) => T | null | undefined | false, timeoutMs?: number): Promise<T>;
  /** The first submit for which `predicate` holds, past or future: it has arrived, maybe not been answered. */
  waitForSubmit(predicate?: (submit: LedgerSubmit) => boolean, timeoutMs?: number): Promise<LedgerSubmit>;
  /** Called after every entry or change in the ledger; returns a function that stops it. */
  subscribe(listener: () => void): () => void;
  /** Frees the ports, cuts all connections, stops all timers. */
  close(): Promise<void>;
}
