/** What the stages need beside the hub: the provider and the storage. */
import { openLedger, type Ledger } from './generation/durability.js';
import type { Hub } from './hub.js';
import { bringBack } from './recall.js';
import { createProvider, type Provider } from './provider/client.js';
import { openStorage } from './storage/open.js';
import type { Storage } from './storage/storage.js';

export interface Context extends Hub {
  readonly provider: Provider;
  readonly storage: Storage;
  readonly ledger: Ledger;
}

/**
 * The hub with provider and storage.
 * @throws InvalidInputError when `STORAGE_URL` cannot be used.
 */
export async function createContext(hub: Hub): Promise<Context> {
  const { config, now } = hub;
  const storage = await openStorage(config.STORAGE_URL);
  const provider = createProvider({
    baseUrl: config.COMETAPI_BASE_URL,
    apiKey: config.COMETAPI_KEY,
    version: config.RUNWAY_VERSION,
    submitTimeoutMs: config.SUBMIT_TIMEOUT_MS,
    pollTimeoutMs: config.POLL_TIMEOUT_MS,
    submit5xxPolicy: config.SUBMIT_5XX_POLICY,
    now,
  });
  const ledger = await openLedger(
    { redis: hub.redis, keys: hub.store.keys, settings: config, now },
    (posts) => bringBack(hub, posts),
  );
  return { ...hub, provider, storage, ledger };
}
