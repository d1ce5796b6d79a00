/**
 * `reelhaul doctor`: looks at everything a worker stands on before it has to, and says what to do. It changes nothing
 * but a probe file that it removes again, and its one call to the provider costs nothing.
 */
import type { Logger } from 'pino';
import { VARIABLES, type Config } from './config.js';
import { createProvider } from './provider/client.js';
import { checkRedis, connectRedis, describeRedis } from './redis.js';
import { openStorage } from './storage/open.js';

export interface Finding {
  readonly level: 'ok' | 'warning' | 'error';
  /** What was looked at. */
  readonly about: string;
  /** What is, and for a warning or an error what to do. */
  readonly message: string;
}

const MAX_CLOCK_SKEW_MS = 1000;
const MEMORY_WARNING_SHARE = 0.8;
const PROBE_TASK = 'reelhaul-doctor-no-such-task';
const SECRETS = /KEY$|SECRET|PASSWORD|TOKEN/;

const ok = (about: string, message: string): Finding => ({ level: 'ok', about, message });
const warning = (about: string, message: string): Finding => ({ level: 'warning', about, message });
const failed = (about: string, message: string): Finding => ({ level: 'error', about, message });
const reasonOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Everything, in the order in which one would mend it. */
export async function examine(config: Config, log: Logger): Promise<Finding[]> {
  return [
    ...examineConfig(config),
    ...(await examineRedis(config, log)),
    await examineStorage(config),
    await examineProvider(config),
  ];
}

/** The settings that are not the defaults, with secrets hidden. */
export function describeConfig(config: Config, defaults: Config): string[] {
  const shown = (name: string, value: unknown) => {
    if (SECRETS.test(name)) return value === '' ? '(not set)' : '(set)';
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
  findings.push(
    config.PUBLIC_URL === ''
      ? warning(
          'PUBLIC_URL',
          'is not set: a submit whose answer is lost cannot be recovered by a callback. Set it if the provider can reach you.',
        )
      : examinePublicUrl(config.PUBLIC_URL),
  );
  return findings;
}

function examinePublicUrl(url: string): Finding {
  const { protocol, hostname } = new URL(url);
  if (protocol !== 'https:')
    return warning('PUBLIC_URL', `${url} is not https: its tokens travel in the open.`);
  if (!hostname.includes('.') || /^(127\.|10\.|192\.168\.)/.test(hostname)) {
    return failed('PUBLIC_URL', `${url} cannot be reached from outside. Use the public name.`);
  }
  return ok('PUBLIC_URL', `${url}; whether the provider reaches it shows at the first callback.`);
}

async function examineRedis(config: Config, log: Logger): Promise<Finding[]> {
  let redis: Awaited<ReturnType<typeof connectRedis>>;
  try {
    redis = await connectRedis(config, 'producer', log);
  } catch (error) {
    return [failed('Redis', reasonOf(error))];
  }
  try {
    const findings: Finding[] = [];
    const askedAt = Date.now();
    const [seconds, microseconds] = await redis.time();
    const skewMs = Math.round(
      Number(seconds) * 1000 + Number(microseconds) / 1000 - (askedAt + Date.now()) / 2,
    );
    const info = await redis.info();
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';

    try {
      await checkRedis(redis, config.REDIS_PREFIX);
      findings.push(ok('Redis', `${describeRedis(config)}: version ${field('redis_version')}, noeviction`));
    } catch (error) {
      findings.push(failed('Redis', reasonOf(error)));
    }
    if (field('aof_enabled') === '1') findings.push(ok('persistence', 'the append-only file is on'));
    else {
      findings.push(
        warning(
          'persistence',
          'the append-only file is off: a restart forgets generations that are paid for. Set appendonly yes.',
        ),
      );
    }
    if (Math.abs(skewMs) <= MAX_CLOCK_SKEW_MS)
      findings.push(ok('clock', `${skewMs} ms beside that of Redis`));
    else
      findings.push(
        warning('clock', `${skewMs} ms beside that of Redis: delays and deadlines shift by that. Use NTP.`),
      );

    const used = Number(field('used_memory'));
    const limit = Number(field('maxmemory'));
    const share = limit > 0 ? used / limit : 0;
    const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;
    const memory =
      limit > 0 ? `${megabytes(used)} of ${megabytes(limit)}` : `${megabytes(used)}, no limit set`;
    findings.push(
      share > MEMORY_WARNING_SHARE
        ? warning(
            'memory',
            `${memory}: when it is full, Redis refuses writes. Raise maxmemory or lower RETENTION_MS.`,
          )
        : ok('memory', memory),
    );
    return findings;
  } finally {
    redis.disconnect();
  }
}

async function examineStorage(config: Config): Promise<Finding> {
  try {
    const storage = await openStorage(config.STORAGE_URL);
    try {
      await storage.probe();
      return ok('storage', `${storage.description}: written, read and removed a probe`);
    } catch (error) {
      return failed('storage', `${storage.description}: ${reasonOf(error)}`);
    } finally {
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
    return warning('provider', `${config.COMETAPI_BASE_URL} did not answer as expected: ${said}`);
  } finally {
    provider.close();
  }
}
