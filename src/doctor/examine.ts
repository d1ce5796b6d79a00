/**
 * `reelhaul doctor`: looks at everything a worker stands on before it has to, and says what to do. It changes nothing
 * but a probe file that it removes again, and its one call to the provider costs nothing.
 */
import { Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { VARIABLES, type Config } from '../config.js';
import { createProvider } from '../provider/client.js';
import { readQuota } from '../provider/quota.js';
import { openStorage } from '../storage/open.js';
import { failed, ok, reasonOf, warning, type Finding } from './finding.js';
import { examineRedis } from './redis.js';

const PROBE_TASK = 'reelhaul-doctor-no-such-task';
const DNS_TIMEOUT_MS = 3000;
const PUBLIC_URL_TIMEOUT_MS = 5000;
/** Storage is asked for three small things; one that takes longer hangs, and would hang every archive. */
const STORAGE_TIMEOUT_MS = 15_000;
const SECRETS = /KEY$|SECRET|PASSWORD|TOKEN/;

/** Everything, in the order in which one would mend it. */
export async function examine(config: Config, log: Logger): Promise<Finding[]> {
  return [
    ...examineConfig(config),
    ...(await examineRedis(config, log)),
    await examineStorage(config),
    await examineProvider(config),
    ...(await examineQuota(config)),
    await examineCallbacks(config),
  ];
}

/** The settings that are not the defaults, with secrets hidden. */
export function describeConfig(config: Config, defaults: Config): string[] {
  const shown = (name: string, value: unknown) => {
    if (SECRETS.test(name)) return String(value) === '' ? '(not set)' : '(set)';
    if (name === 'REDIS_URL') return new URL(String(value)).host;
    return typeof value === 'string' ? value : JSON.stringify(value);
  };
  return VARIABLES.flatMap((name) => {
    const key = name as keyof Config;
    const value = shown(name, config[key]);
    return value === shown(name, defaults[key]) ? [] : [`${name}=${value}`];
  });
}

function examineConfig(config: Config): Finding[] {
  const findings: Finding[] = [];
  if (config.COMETAPI_KEY === '')
    findings.push(failed('COMETAPI_KEY', 'is not set: workers will not start. Set it.'));
  if (config.SHUTDOWN_TIMEOUT_MS < config.SUBMIT_TIMEOUT_MS) {
    findings.push(
      warning(
        'SHUTDOWN_TIMEOUT_MS',
        'is shorter than SUBMIT_TIMEOUT_MS: a deploy can cut a paid call, which is then unconfirmed. Raise it.',
      ),
    );
  }
  if (config.SUBMIT_TIMEOUT_MS < 60_000) {
    findings.push(
      warning(
        'SUBMIT_TIMEOUT_MS',
        'is below 60 s: the provider was seen to take 21 s, and what is cut off is unconfirmed. Raise it.',
      ),
    );
  }
  if (config.SUBMIT_5XX_POLICY === 'retry') {
    findings.push(
      warning('SUBMIT_5XX_POLICY', 'is retry: a 500 that hides an accepted task is billed twice.'),
    );
  }
  if (config.UNCONFIRMED_POLICY === 'resubmit') {
    findings.push(
      warning(
        'UNCONFIRMED_POLICY',
        'is resubmit: what is unclear is submitted once more, and may be billed twice.',
      ),
    );
  }
  return findings;
}

/** Only the provider can tell whether it reaches us; what can be seen from here is seen. */
async function examineCallbacks({ PUBLIC_URL: url }: Config): Promise<Finding> {
  const about = 'callbacks';
  if (url === '') {
    return warning(
      about,
      'PUBLIC_URL is not set: a submit whose answer is lost cannot be recovered by a callback. Set it if the provider can reach you.',
    );
  }
  const { protocol, hostname } = new URL(url);
  if (
    !hostname.includes('.') ||
    /^(127|10|192\.168|169\.254|172\.(1[6-9]|2\d|3[01]))\.[\d.]+$/.test(hostname)
  )
    return failed(about, `${url} cannot be reached from outside. Set PUBLIC_URL to the public name.`);
  if (protocol !== 'https:') return warning(about, `${url} is not https: its tokens travel in the open.`);
  // The system's own look-up cannot be stopped, and takes half a minute where DNS is out of reach.
  const dns = new Resolver({ timeout: DNS_TIMEOUT_MS, tries: 1 });
  const known = await Promise.any([dns.resolve4(hostname), dns.resolve6(hostname)]).then(
    () => true,
    () => isIP(hostname) !== 0,
  );
  if (!known) return failed(about, `DNS has no address of ${hostname}. Check PUBLIC_URL.`);
  const signal = AbortSignal.timeout(PUBLIC_URL_TIMEOUT_MS);
  const status = await fetch(`${url}/healthz`, { signal, redirect: 'manual' }).then(
    (response) => response.status,
    () => null,
  );
  if (status === 200)
    return ok(about, `${url} answers from here; whether the provider reaches it shows the first one`);
  return warning(
    about,
    `${url}/healthz answered ${status === null ? 'nothing' : `HTTP ${status}`} from here. Is reelhaul serve running behind it?`,
  );
}

async function examineStorage(config: Config): Promise<Finding> {
  const advice = 'Check STORAGE_URL, and that this user may write there: videos wait until then.';
  try {
    const storage = await openStorage(config.STORAGE_URL);
    const late = new AbortController();
    try {
      const answered = await Promise.race([
        storage.probe().then(() => true),
        sleep(STORAGE_TIMEOUT_MS, false, { signal: late.signal }),
      ]);
      if (answered) return ok('storage', `${storage.description}: written, read and removed a probe`);
      return failed(
        'storage',
        `${storage.description} has not answered for ${STORAGE_TIMEOUT_MS / 1000} s. ${advice}`,
      );
    } catch (error) {
      return failed('storage', `${storage.description}: ${reasonOf(error)} ${advice}`);
    } finally {
      late.abort();
      await storage.close();
    }
  } catch (error) {
    return failed('storage', reasonOf(error));
  }
}

/** A poll for a task that cannot exist: a good key is told that there is none, a bad one that it is bad. */
async function examineProvider(config: Config): Promise<Finding> {
  if (config.COMETAPI_KEY === '') return warning('provider', 'not asked, since there is no key');
  const provider = createProvider({
    baseUrl: config.COMETAPI_BASE_URL,
    apiKey: config.COMETAPI_KEY,
    version: config.RUNWAY_VERSION,
    submitTimeoutMs: config.SUBMIT_TIMEOUT_MS,
    pollTimeoutMs: config.POLL_TIMEOUT_MS,
    submit5xxPolicy: config.SUBMIT_5XX_POLICY,
    now: Date.now,
  });
  try {
    const outcome = await provider.poll(PROBE_TASK);
    if (outcome.kind === 'notVisible')
      return ok('provider', `${config.COMETAPI_BASE_URL} answers and takes the key`);
    const said = 'message' in outcome ? outcome.message : outcome.kind;
    if (outcome.kind === 'misconfigured') {
      return failed(
        'provider',
        `${config.COMETAPI_BASE_URL}: ${said}. Check COMETAPI_KEY and COMETAPI_BASE_URL.`,
      );
    }
    return warning(
      'provider',
      `${config.COMETAPI_BASE_URL} did not answer as expected: ${said}. Check COMETAPI_BASE_URL and the way there; work waits until it answers.`,
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
