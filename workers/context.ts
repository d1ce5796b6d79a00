/** What the stages need beside the hub: the provider and the storage. */
import { openLedger, type Ledger } from '../src/store/submit-ledger.js';
import type { Hub } from '../src/pipeline/context.js';
import { createInputChecks, type InputChecks } from '../src/pipeline/check-inputs.js';
import { bringBack } from '../src/pipeline/recover-submits.js';
import { parseAllowedHosts } from '../src/outbound/address-rules.js';
import { createProvider, type Provider } from '../src/provider/client.js';
import { keepGuardedAgents, resolveBySystem, type KeptAgents } from '../src/outbound/guarded-agent.js';
import { openStorage } from '../src/storage/open.js';
import type { Storage } from '../src/storage/storage.js';

export interface Context extends Hub {
  readonly provider: Provider;
  readonly storage: Storage;
  readonly ledger: Ledger;
  /** Connections to where assets lie. */
  readonly assetHosts: KeptAgents;
  readonly inputChecks: InputChecks;
}

/**
 * The hub with provider, storage and ledger.
 * @param hosts connections to where inputs lie; default: to public addresses only, whatever else may be fetched
 * @throws InvalidInputError when `STORAGE_URL` cannot be used.
 */
export async function createContext(hub: Hub, hosts?: Pick<KeptAgents, 'agentFor'>): Promise<Context> {
  const { config, now } = hub;
  const storage = await openStorage(config.STORAGE_URL);
  const provider = createProvider({
    baseUrl: config.COMETAPI_BASE_URL,
    apiKey: config.COMETAPI_KEY,
    version: config.RUNWAY_VERSION,
    submitTimeoutMs: config.SUBMIT_TIMEOUT_MS,
    pollTimeoutMs: config.POLL_TIMEOUT_MS,
    submit5xxPolicy: config.SUBMIT_5XX_POLICY,
    submitNotAcceptedCodes: config.SUBMIT_NOT_ACCEPTED_CODES,
    now,
  });
  const assetHosts = keepGuardedAgents(
    {
      allowed: parseAllowedHosts(config.ARCHIVE_ALLOW_HOSTS),
      onlyAllowed: config.ARCHIVE_ONLY_ALLOWED,
      setting: 'ARCHIVE_ALLOW_HOSTS',
      resolve: resolveBySystem,
    },
    now,
  );
  const ledger = await openLedger(
    { redis: hub.redis, keys: hub.store.keys, settings: config, now },
    (posts) => bringBack(hub, posts),
  );
  const inputHosts = keepGuardedAgents(
    { allowed: parseAllowedHosts([]), onlyAllowed: false, setting: 'Nothing', resolve: resolveBySystem },
    now,
  );
  const inputChecks = createInputChecks({ hub, storage, hosts: hosts ?? inputHosts });
  return {
    ...hub,
    provider: told(provider, hub),
    storage,
    assetHosts,
    inputChecks: {
      ...inputChecks,
      async close() {
        await inputChecks.close();
        inputHosts.close();
      },
    },
    ledger,
  };
}

/** The provider, with every call told. */
function told(provider: Provider, { work, now }: Hub): Provider {
  const tell = async <T extends { kind: string; answer: { httpStatus: number | null } }>(
    call: 'submit' | 'poll',
    calling: Promise<T>,
  ): Promise<T> => {
    const calledAt = now();
    const outcome = await calling;
    const { kind, answer } = outcome;
    work.tell({
      kind: 'called',
      call,
      outcome: kind,
      httpStatus: answer.httpStatus,
      durationMs: now() - calledAt,
    });
    return outcome;
  };
  return {
    ...provider,
    submit: (request, options) => tell('submit', provider.submit(request, options)),
    poll: (taskId, options) => tell('poll', provider.poll(taskId, options)),
  };
}
