/** How far a ledger write has come before money is spent on it. */
import type { Redis } from 'ioredis';

export interface DurabilitySettings {
  /** 0 (default): the master's word is enough. */
  readonly LEDGER_WAIT_REPLICAS: number;
  readonly LEDGER_WAIT_TIMEOUT_MS: number;
}

/**
 * Waits until the writes of this connection are in the memory of enough replicas (Redis `WAIT`), so that a failover
 * does not forget them. It narrows the window, it does not close it: see `docs/redis-faults.md`.
 * @returns false when too few answered in time.
 */
export async function awaitReplicas(
  redis: Redis,
  { LEDGER_WAIT_REPLICAS: replicas, LEDGER_WAIT_TIMEOUT_MS: timeoutMs }: DurabilitySettings,
): Promise<boolean> {
  if (replicas === 0) return true;
  return (await redis.wait(replicas, timeoutMs)) >= replicas;
}
