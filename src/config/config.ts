/**
 * The configuration: read once from the environment, checked as a whole, frozen. Every problem is named in one
 * message, with what was expected and what was got; a secret is never repeated in it. `.env.example` lists the same
 * variables, and a test compares the two.
 */
import { z } from 'zod';
import { didYouMean } from '../generation/did-you-mean.js';
import { ConfigError, type Problem } from '../errors.js';
import { DEFAULT_KEY_TEMPLATE } from '../storage/paths.js';
import * as field from './fields.js';
import { contradictions } from './rules.js';

/** Name → reader. Defaults are texts, as they would stand in the environment. */
const shape = {
  COMETAPI_KEY: field.headerSafe.default(''),
  COMETAPI_BASE_URL: field.apiOrigin.default('https://api.cometapi.com'),
  COMETAPI_QUOTA_KEY: field.headerSafe.default(''),
  COMETAPI_QUOTA_URL: field.httpUrl.default('https://query.cometapi.com'),
  RUNWAY_VERSION: field.headerSafe.default('2024-11-06'),
  REDIS_URL: field.redisUrl.default('redis://127.0.0.1:6379'),
  REDIS_SENTINELS: field.addressList.default([]),
  REDIS_SENTINEL_NAME: field.headerSafe.default('mymaster'),
  REDIS_SENTINEL_PASSWORD: z.string().default(''),
  REDIS_CLUSTER_NODES: field.addressList.default([]),
  REDIS_TLS_CA_FILE: z.string().default(''),
  REDIS_TLS_CERT_FILE: z.string().default(''),
  REDIS_TLS_KEY_FILE: z.string().default(''),
  REDIS_TLS_VERIFY: field.flag.default(true),
  REDIS_PREFIX: field.prefix.default('{reelhaul}'),
  STORAGE_URL: field.storageUrl.default('file:./archive'),
  PUBLIC_URL: field.httpUrl.default(''),
  CALLBACK_SECRET: field.callbackSecrets.default([]),
  CALLBACK_PLACEHOLDER_URL: field.url(['https:', 'http:']).default('https://example.com/webhook'),
  API_TOKENS: field.tokenList.default([]),
  TENANT_ADOPT: field.flag.default(false),
  DASHBOARD_USER: z.string().default(''),
  DASHBOARD_PASSWORD: z.string().default(''),
  DASHBOARD_VIEWER_USER: z.string().default(''),
  DASHBOARD_VIEWER_PASSWORD: z.string().default(''),
  API_RATE_LIMIT: field.integer(0, 1_000_000, 'requests per minute').default(600),
  BASE_PATH: field.basePath.default(''),
  TRUSTED_PROXIES: field.proxyList.default([]),
  API_MAX_QUEUED: field.integer(0, 1_000_000_000, 'generations').default(100_000),
  API_MAX_QUEUED_BYTES: field.integer(0, Number.MAX_SAFE_INTEGER, 'bytes').default(256 * 1024 * 1024),
  PORT: field.integer(0, 65_535, 'a port').default(3000),
  WORKER_PORT: field.workerPort.default(0),
  LOG_LEVEL: field.oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent').default('info'),
  SHUTDOWN_TIMEOUT_MS: field.milliseconds(100).default(100_000),
  SWEEP_INTERVAL_MS: field.milliseconds(100).default(60_000),
  IDEMPOTENCY_TTL_MS: field.milliseconds(1000).default(7 * 24 * 3_600_000),
  JOB_LOCK_MS: field.milliseconds(1000).default(30_000),
  RETENTION_MS: field.milliseconds(1000).default(30 * 24 * 3_600_000),
  FILES_RETENTION_MS: field.milliseconds(1000).nullable().default(null),
  LEDGER_WAIT_REPLICAS: field.integer(0, 10, 'replicas').default(0),
  LEDGER_WAIT_AOF: field.flag.default(false),
  LEDGER_WAIT_TIMEOUT_MS: field.milliseconds(1).default(3000),
  LEDGER_HOLD_MS: field.milliseconds().default(5000),

  SUBMIT_CONCURRENCY: field.count().default(10),
  SUBMIT_TIMEOUT_MS: field.milliseconds(100).default(90_000),
  SUBMIT_ATTEMPTS: field.count().default(20),
  SUBMIT_BACKOFF_MS: field.milliseconds(1).default(1000),
  SUBMIT_5XX_POLICY: field.oneOf('unconfirmed', 'retry').default('unconfirmed'),
  SUBMIT_NOT_ACCEPTED_CODES: field.codeList.default(['model_not_found']),
  UNCONFIRMED_POLICY: field.oneOf('hold', 'resubmit', 'fail').default('hold'),
  UNCONFIRMED_WAIT_MS: field.milliseconds().default(600_000),
  REFUSED_PROBE_MS: field.milliseconds(10).default(60_000),

  INPUT_URL_CHECK: field.flag.default(true),
  INPUT_TIMEOUT_MS: field.milliseconds(100).default(30_000),
  INPUT_ATTEMPTS: field.count().default(5),
  INPUT_BACKOFF_MS: field.milliseconds(1).default(2000),
  INPUT_UNUSED_MS: field.milliseconds(1000).default(24 * 3_600_000),

  MAX_IN_FLIGHT: field.limit('generations at once'),
  MAX_IN_FLIGHT_PER_TENANT: field.limit('generations at once'),
  PROVIDER_RATE_MAX: field.limit('calls per window'),
  PROVIDER_RATE_WINDOW_MS: field.milliseconds(100).default(60_000),
  PROVIDER_RATE_FIRST: field.oneOf('poll', 'submit').default('poll'),
  BREAKER_FAILURES: field.count().default(5),
  BREAKER_PROBE_MS: field.milliseconds(10).default(15_000),
  TENANTS: field.tenants.default({}),
  PRICES: field.prices.default({}),
  BUDGET_PER_DAY: field.budget,
  BUDGET_PER_TENANT_PER_DAY: field.budget,
  OVER_BUDGET: field.oneOf('wait', 'fail').default('wait'),
  UNKNOWN_PRICE: field.oneOf('refuse', 'allow').default('refuse'),

  POLL_CONCURRENCY: field.count().default(50),
  POLL_TIMEOUT_MS: field.milliseconds(100).default(30_000),
  POLL_FIRST_DELAY_MS: field.milliseconds().default(5000),
  POLL_MIN_INTERVAL_MS: field.milliseconds(1).default(5000),
  POLL_MAX_INTERVAL_MS: field.milliseconds(1).default(60_000),
  NOT_VISIBLE_GRACE_MS: field.milliseconds().default(120_000),
  NO_URL_GRACE_MS: field.milliseconds().default(120_000),
  GENERATION_DEADLINE_MS: field.milliseconds(1).default(1_800_000),
  LATE_CHECK_INTERVAL_MS: field.milliseconds(1).default(600_000),
  LATE_CHECK_FOR_MS: field.milliseconds().default(24 * 3_600_000),

  ARCHIVE_CONCURRENCY: field.count().default(5),
  ARCHIVE_TIMEOUT_MS: field.milliseconds(100).default(900_000),
  ARCHIVE_IDLE_TIMEOUT_MS: field.milliseconds(100).default(30_000),
  ARCHIVE_ATTEMPTS: field.count().default(8),
  ARCHIVE_BACKOFF_MS: field.milliseconds(1).default(2000),
  ARCHIVE_OUTAGE_MS: field.milliseconds().default(6 * 3_600_000),
  ARCHIVE_KEY_TEMPLATE: field.keyTemplate.default(DEFAULT_KEY_TEMPLATE),
  ARCHIVE_MAX_BYTES: field.integer(1, Number.MAX_SAFE_INTEGER, 'bytes').default(5_000_000_000),
  ARCHIVE_ALLOW_HOSTS: field.hostList.default([]),
  ARCHIVE_ONLY_ALLOWED: field.flag.default(false),
  ARCHIVE_USER_AGENT: field.userAgent.default('reelhaul'),

  NOTIFY_SECRET: field.webhookSecrets.default([]),
  NOTIFY_CONCURRENCY: field.count().default(20),
  NOTIFY_TIMEOUT_MS: field.milliseconds(100).default(15_000),
  NOTIFY_ATTEMPTS: field.count().default(20),
  NOTIFY_BACKOFF_MS: field.milliseconds(1).default(5000),
  NOTIFY_ALLOW_HOSTS: field.hostList.default([]),
};

const schema = z.object(shape);

/** What a variable may be, in the words of its error message; null for any text. */
export function expectationOf(name: string): string | null {
  let schema: unknown = shape[name as keyof typeof shape];
  while (schema instanceof z.ZodType) {
    if (schema.description) return schema.description.replace(/^expected /, '');
    if (schema instanceof z.ZodDefault || schema instanceof z.ZodNullable) schema = schema.unwrap();
    else if (schema instanceof z.ZodUnion) schema = schema.options[0];
    else return null;
  }
  return null;
}

export type Config = Readonly<z.output<typeof schema>>;

/** Every variable that is read, in the order of `.env.example`. */
export const VARIABLES: readonly string[] = Object.keys(shape);

/** Settings of earlier versions that nothing reads any more, and what to do instead. */
const REMOVED: Readonly<Record<string, string>> = {
  REDIS_SHARDS:
    'expected nothing: generations are not spread over shards any more. Run one installation (one REDIS_PREFIX) per group of tenants instead (docs/redis.md)',
};

/** Blanks around a value come from files and copying; only a password that a person chose may have them. */
const trimmed = (name: string, text: string | undefined) => (name.endsWith('PASSWORD') ? text : text?.trim());

/**
 * Reads the configuration. An empty value counts as not set.
 * @throws ConfigError naming every problem.
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const problems = Object.entries(REMOVED)
    .filter(([name]) => environment[name])
    .map(([path, message]): Problem => ({ path, message }));
  const given: Record<string, string> = {};
  for (const name of VARIABLES) {
    const text = trimmed(name, environment[name]);
    if (!text) continue;
    const read = shape[name as keyof typeof shape].safeParse(text);
    if (read.success) given[name] = text;
    else problems.push(...read.error.issues.map(({ message }) => ({ path: name, message })));
  }
  // What cannot be read is left at its default here; rules that ask for it are not asked.
  const read = schema.parse(given);
  const config =
    given['INPUT_URL_CHECK'] === undefined && isLoopback(read.COMETAPI_BASE_URL)
      ? { ...read, INPUT_URL_CHECK: false }
      : read;
  problems.push(...contradictions(config, new Set(problems.map(({ path }) => path))));
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze(config);
}

/** Is it on this machine? A simulator beside us fetches nothing from other machines, and reaches what nothing outside can. */
export const isLoopback = (url: string): boolean =>
  /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(new URL(url).hostname);

/** What is set under a name that is nearly that of a setting, and so has no effect: a line for each. */
export function misspeltSettings(environment: Readonly<Record<string, string | undefined>>): Problem[] {
  return Object.keys(environment).flatMap((name) => {
    // Shorter ones are names of everything.
    if (name.length < 6 || VARIABLES.includes(name) || Object.hasOwn(REMOVED, name)) return [];
    const meant = didYouMean(name, VARIABLES);
    return meant === null ? [] : [{ path: name, message: `has no effect. Did you mean ${meant}?` }];
  });
}

/**
 * Every secret in the configuration, as it may turn up in a text. Of API tokens only digests are kept there: they are read
 * from the environment once more.
 */
export function secretsIn(
  config: Config,
  environment: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  const { username, password } = new URL(config.REDIS_URL);
  const logins = [
    [decodeURIComponent(username), decodeURIComponent(password)],
    [config.DASHBOARD_USER, config.DASHBOARD_PASSWORD],
    [config.DASHBOARD_VIEWER_USER, config.DASHBOARD_VIEWER_PASSWORD],
  ];
  return [
    config.COMETAPI_KEY,
    config.COMETAPI_QUOTA_KEY,
    ...config.CALLBACK_SECRET,
    config.REDIS_SENTINEL_PASSWORD,
    ...config.NOTIFY_SECRET,
    // What is signed with has no prefix.
    ...config.NOTIFY_SECRET.map((secret) => secret.replace(/^whsec_/, '')),
    ...logins.map(([, secret = '']) => secret),
    // As `authorization: Basic` has them.
    ...logins.flatMap(([user = '', secret = '']) =>
      secret === '' ? [] : [Buffer.from(`${user}:${secret}`).toString('base64')],
    ),
    ...(environment['API_TOKENS'] ?? '').split(',').map((entry) => entry.trim().split(':')[0] ?? ''),
    environment['AWS_SECRET_ACCESS_KEY'] ?? '',
    environment['AWS_SESSION_TOKEN'] ?? '',
  ].filter((secret) => secret !== '');
}
