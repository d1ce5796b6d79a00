/**
 * `reelhaul doctor`: looks at everything a worker stands on before it has to, and says what to do. It changes nothing
 * but a probe file that it removes again, and its one call to the provider costs nothing. It always comes to an end:
 * what does not answer is said not to.
 */
import type { Logger } from 'pino';
import { isLoopback, type Config } from '../../config/config.js';
import { InvalidInputError } from '../../errors.js';
import { parseAllowedHosts } from '../../outbound/address-rules.js';
import { within } from '../../outbound/limit.js';
import { createProvider } from '../../provider/client.js';
import { readQuota } from '../../provider/quota.js';
import { openStorage } from '../../storage/open.js';
import type { Storage } from '../../storage/storage.js';
import { examineCallbacks } from './callbacks.js';
import { failed, ok, reasonOf, warning, type Finding } from './finding.js';
import { examineRedis } from './redis.js';
import { examineConfig } from './settings.js';

const PROBE_TASK = 'reelhaul-doctor-no-such-task';
/** Storage is asked for three small things; one that takes longer hangs, and would hang every archive. */
const STORAGE_TIMEOUT_MS = 15_000;
/** A poll may be given longer than a person wants to look at nothing. */
const PROVIDER_TIMEOUT_MS = 15_000;

/** All findings, in the order in which they should be corrected; the looks run at the same time. */
export async function examine(
  config: Config,
  log: Logger,
  environment: NodeJS.ProcessEnv,
): Promise<Finding[]> {
  const found = await Promise.all([
    examineRedis(config, log),
    examineStorage(config).then(alone),
    examineProvider(config).then(alone),
    examineQuota(config),
    examineCallbacks(config).then(alone),
  ]);
  return [...examineConfig(config, environment), ...found.flat(), ...examineAssetHosts(config)];
}

const alone = (finding: Finding): Finding[] => [finding];

/** Hosts that nothing lets through fail a paid generation as asset_forbidden. */
function examineAssetHosts(config: Config): Finding[] {
  const { ARCHIVE_ALLOW_HOSTS: hosts, ARCHIVE_ONLY_ALLOWED: only, COMETAPI_BASE_URL: provider } = config;
  const about = 'asset hosts';
  if (only && hosts.length === 0) {
    const what = 'ARCHIVE_ONLY_ALLOWED is set, and no host is allowed: no video can be fetched.';
    return [failed(about, `${what} Set ARCHIVE_ALLOW_HOSTS.`)];
  }
  const { hostname, port } = new URL(provider);
  const allowed = parseAllowedHosts(hosts);
  const at = hostname.replaceAll(/^\[|\]$/g, '');
  const isAllowed =
    allowed.coversName(at, Number(port || 80)) || allowed.coversAddress(at, Number(port || 80));
  if (!isLoopback(provider) || isAllowed) return [];
  const what = `${at} is this machine, whose addresses are refused: the videos of this provider cannot be fetched.`;
  return [failed(about, `${what} Set ARCHIVE_ALLOW_HOSTS=127.0.0.1,localhost.`)];
}

async function examineStorage(config: Config): Promise<Finding> {
  let storage: Storage;
  try {
    storage = await openStorage(config.STORAGE_URL);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) return failed('storage', reasonOf(error));
    const problems = error.problems.map(({ path, message }) => `${path}: ${message}`);
    return failed('storage', `${problems.join('; ')}. Set STORAGE_URL so.`);
  }
  const advice = 'Check STORAGE_URL, and that this user may write there: videos wait until then.';
  const probing = storage.probe().then(
    () => ok('storage', `${storage.description}: written, read and removed a probe`),
    (error: unknown) => failed('storage', `${storage.description}: ${reasonOf(error)} ${advice}`),
  );
  const late = `has not answered for ${STORAGE_TIMEOUT_MS / 1000} s. ${advice}`;
  const finding =
    (await within(STORAGE_TIMEOUT_MS, probing)) ?? failed('storage', `${storage.description} ${late}`);
  await storage.close();
  return finding;
}

/** Statuses of an address or a proxy: the API itself answers no poll so. */
const MISROUTED = [404, 405, 407, 421];

/** A poll for a task that cannot exist: a good key is told that there is none, a bad one that it is bad. */
async function examineProvider(config: Config): Promise<Finding> {
  const { COMETAPI_BASE_URL: url, POLL_TIMEOUT_MS } = config;
  if (config.COMETAPI_KEY === '')
    return warning('provider', 'not asked, since there is no key. Set COMETAPI_KEY.');
  const provider = createProvider({
    baseUrl: url,
    apiKey: config.COMETAPI_KEY,
    version: config.RUNWAY_VERSION,
    submitTimeoutMs: config.SUBMIT_TIMEOUT_MS,
    pollTimeoutMs: Math.min(POLL_TIMEOUT_MS, PROVIDER_TIMEOUT_MS),
    submit5xxPolicy: config.SUBMIT_5XX_POLICY,
    submitNotAcceptedCodes: config.SUBMIT_NOT_ACCEPTED_CODES,
    now: Date.now,
  });
  try {
    const outcome = await provider.poll(PROBE_TASK);
    if (outcome.kind === 'notVisible') return ok('provider', `${url} answers and takes the key`);
    const said = (('message' in outcome ? outcome.message : null) ?? outcome.kind).replace(/\.+$/, '');
    const { httpStatus } = outcome.answer;
    if (httpStatus !== null && (MISROUTED.includes(httpStatus) || (httpStatus >= 300 && httpStatus < 400))) {
      return failed(
        'provider',
        `${url}: ${said}. Something in front of the API answers (a proxy, a login page, another server): submits would be misrouted. Set COMETAPI_BASE_URL to the address of the API, such as https://api.cometapi.com, and let this machine through to it.`,
      );
    }
    if (outcome.kind === 'misconfigured') {
      return failed(
        'provider',
        `${url}: ${said}. Check COMETAPI_KEY and COMETAPI_BASE_URL, and what stands in front of it.`,
      );
    }
    return warning(
      'provider',
      `${url} did not answer as expected: ${said}. Check COMETAPI_BASE_URL and the way there; work waits until it answers.`,
    );
  } finally {
    provider.close();
  }
}

async function examineQuota({
  COMETAPI_QUOTA_KEY: key,
  COMETAPI_QUOTA_URL: url,
}: Config): Promise<Finding[]> {
  if (key === '') return [];
  const result = await readQuota(url, key);
  if ('problem' in result) {
    const what = `${url} gives no balance: ${result.problem}. Check COMETAPI_QUOTA_KEY and COMETAPI_QUOTA_URL.`;
    return [warning('balance', what)];
  }
  const { left, used } = result.quota;
  return left > 0
    ? [ok('balance', `${left} left, ${used} used, in the provider's units`)]
    : [failed('balance', `nothing is left (${used} used): submits will be refused. Top up.`)];
}
