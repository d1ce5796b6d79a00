/**
 * The configuration: read once from the environment, checked as a whole, frozen. Every problem is named in one
 * message, with what was expected and what was got; a secret is never repeated in it. `.env.example` lists the same
 * variables, and a test compares the two.
 */
import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { z } from 'zod';
import { didYouMean } from '../generation/did-you-mean.js';
import { ConfigError, InvalidInputError, type Problem, withoutSecrets } from '../errors.js';
import { parseAllowedHosts } from '../outbound/address-rules.js';
import { storageUrlProblems } from '../storage/open.js';
import { DEFAULT_KEY_TEMPLATE, keyTemplateProblems } from '../storage/paths.js';
import { contradictions } from './rules.js';

const MAX_MS = 365 * 24 * 3_600_000;

function integer(min: number, max: number, unit: string) {
  const expected = `expected a whole number of ${unit} from ${min} to ${max}`;
  return z
    .string()
    .regex(/^-?\d{1,16}$/, { error: (issue) => `${expected}, got ${JSON.stringify(issue.input)}` })
    .transform(Number)
    .refine((n) => n >= min && n <= max, { error: (issue) => `${expected}, got ${String(issue.input)}` })
    .describe(expected);
}
const milliseconds = (min = 0) => integer(min, MAX_MS, 'milliseconds');
const count = (min = 1, max = 10_000) => integer(min, max, 'things at once or tries');

const flag = z
  .enum(['true', 'false', '1', '0'], {
    error: (issue) => `expected true or false, got ${JSON.stringify(issue.input)}`,
  })
  .transform((text) => text === 'true' || text === '1')
  .describe('expected true or false');

const oneOf = <const T extends readonly string[]>(...words: T) =>
  z
    .enum(words, {
      error: (issue) => `expected one of ${words.join(', ')}, got ${JSON.stringify(issue.input)}`,
    })
    .describe(`expected one of ${words.join(', ')}`);

function url(protocols: readonly string[], { secret = false } = {}) {
  const expected = `expected a URL that starts with ${protocols.map((p) => `${p}//`).join(' or ')}`;
  const read = z.string().superRefine((text, issue) => {
    const ok = URL.canParse(text) && protocols.includes(new URL(text).protocol);
    if (!ok)
      issue.addIssue({
        code: 'custom',
        message: secret ? expected : `${expected}, got ${JSON.stringify(withoutSecrets(text))}`,
      });
  });
  return read.describe(expected);
}
/** Never repeated in a message, since it may hold a password. */
const redisUrl = url(['redis:', 'rediss:'], { secret: true })
  .superRefine((text, issue) => {
    if (!URL.canParse(text)) return;
    const { pathname, username, password } = new URL(text);
    if (!/^\/?\d{0,4}$/.test(pathname)) {
      issue.addIssue({
        code: 'custom',
        message: 'expected nothing but the number of a database after the host, such as /0',
      });
    }
    try {
      decodeURIComponent(username + password);
    } catch {
      issue.addIssue({
        code: 'custom',
        message: 'expected user and password percent-encoded (% as %25, / as %2F, @ as %40)',
      });
    }
  })
  .describe('expected a URL that starts with redis:// or rediss://');
/** The beginning of addresses: paths are put behind it, which parameters would swallow; a login would be sent and shown. */
const httpUrl = () => {
  const read = url(['https:', 'http:']).superRefine((text, issue) => {
    if (!URL.canParse(text)) return;
    const { username, password, search, hash } = new URL(text);
    if (username + password + search + hash !== '')
      issue.addIssue({
        code: 'custom',
        message: `expected no user name, parameters or fragment in it, got ${JSON.stringify(withoutSecrets(text))}`,
      });
  });
  return read
    .transform((text) => text.replace(/\/+$/, ''))
    .describe('expected a URL that starts with https:// or http://');
};

/** Kubernetes gives every pod `WORKER_PORT=tcp://…` when its namespace has a Service named `worker`. */
const workerPort = z
  .string()
  .refine((text) => !/^\w+:\/\//.test(text), {
    abort: true,
    error: (issue) =>
      `expected a port, got ${JSON.stringify(issue.input)}: Kubernetes sets this variable for a Service named "worker". ` +
      'Set enableServiceLinks: false in the pod spec, or rename the Service',
  })
  .pipe(integer(0, 65_535, 'a port'))
  .describe('expected a whole number of a port from 0 to 65535');

/** Of the API: reelhaul puts its own paths behind it, and any before them leads to something else than the API. */
const apiOrigin = httpUrl()
  .superRefine((text, issue) => {
    if (URL.canParse(text) && new URL(text).pathname !== '/')
      issue.addIssue({
        code: 'custom',
        message: `expected scheme, host and port alone, such as https://api.cometapi.com, got ${JSON.stringify(withoutSecrets(text))}`,
      });
  })
  .describe('expected scheme, host and port alone, such as https://api.cometapi.com');

const headerSafe = z
  .string()
  .regex(/^[\x21-\x7e]+$/, { error: 'expected printable characters without spaces' })
  .describe('expected printable characters without spaces');

/** Every entry that is none of the three forms is a problem of its own. */
function hostProblems(entries: readonly string[]): readonly Problem[] {
  try {
    parseAllowedHosts(entries);
    return [];
  } catch (error) {
    if (error instanceof InvalidInputError) return error.problems;
    throw error;
  }
}

const hostList = z
  .string()
  .transform((text) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean),
  )
  .superRefine((entries, issue) => {
    for (const { message } of hostProblems(entries)) issue.addIssue({ code: 'custom', message });
  })
  .describe('expected host names, IPs or CIDRs separated by commas');

/** Codes of the provider; `none` stands for the empty list, since an empty value counts as not set. */
const codeList = z
  .string()
  .regex(/^[\w.]+(\s*,\s*[\w.]+)*$/, {
    error: (issue) => `expected codes separated by commas, or none, got ${JSON.stringify(issue.input)}`,
  })
  .transform((text) => text.split(',').map((code) => code.trim().toLowerCase()))
  .transform((codes) => codes.filter((code) => code !== 'none'))
  .describe('expected codes separated by commas, or none');

/** Of proxies only addresses are known: the other end of a connection has no name. */
const proxyList = hostList
  .superRefine((entries, issue) => {
    for (const entry of entries)
      if (isIP(entry.split('/')[0]!) === 0)
        issue.addIssue({
          code: 'custom',
          message: `expected IPs or CIDRs, got ${JSON.stringify(entry)}`,
        });
  })
  .describe('expected IPs or CIDRs separated by commas');

const basePath = z
  .string()
  .regex(/^(\/[\w.~-]+)+$/, {
    error: (issue) =>
      `expected a path such as /reels, without a / at its end, got ${JSON.stringify(issue.input)}`,
  })
  .describe('expected a path such as /reels, without a / at its end');

/** `host:port` entries separated by commas; an IPv6 address in brackets. */
const addressList = z
  .string()
  .transform((text, issue) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean)
      .map((entry) => {
        const [, host = '', port = ''] = /^\[?([^\s[\]]+?)\]?:(\d{1,5})$/.exec(entry) ?? [];
        if (host === '' || Number(port) < 1 || Number(port) > 65_535)
          issue.addIssue({
            code: 'custom',
            message: `expected host:port entries separated by commas, got ${JSON.stringify(entry)}`,
          });
        return { host, port: Number(port) };
      }),
  )
  .describe('expected host:port entries separated by commas');

/** Standard Webhooks: `whsec_` and 24 to 64 bytes as base64. What was got is not repeated: it is a secret. */
const webhookSecrets = z
  .string()
  .transform((text) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean),
  )
  .superRefine((secrets, issue) => {
    for (const [i, secret] of secrets.entries()) {
      const [, base64 = ''] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
      const bytes = Buffer.from(base64, 'base64').length;
      if (base64.length % 4 !== 0 || bytes < 24 || bytes > 64)
        issue.addIssue({
          code: 'custom',
          message: `expected whsec_ and 24 to 64 bytes as base64 (entry ${i + 1} is not that)`,
        });
    }
  })
  .describe('expected entries of whsec_ and 24 to 64 bytes as base64, separated by commas');

/** The first signs, all are accepted: one is changed without turning away what was made with the one before. */
const callbackSecrets = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .superRefine((secrets, issue) => {
    for (const [i, secret] of secrets.entries()) {
      if (secret.length < 16)
        issue.addIssue({
          code: 'custom',
          message: `expected secrets of at least 16 characters, separated by commas (entry ${i + 1} is not that)`,
        });
    }
  })
  .describe('expected secrets of at least 16 characters, separated by commas');

const storageUrl = z.string().superRefine((text, issue) => {
  for (const { path, message } of storageUrlProblems(text))
    issue.addIssue({ code: 'custom', message: path === 'STORAGE_URL' ? message : `${path}: ${message}` });
});

/**
 * `token[:tenant][:ro]` entries separated by commas. Only digests are kept, so that nothing that prints the
 * configuration can give a token away; one may also be given as `sha256-<hex>`, and is then nowhere at all.
 */
const tokenList = z
  .string()
  .transform((text, issue) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean)
      .map((entry, i) => {
        const complain = (expected: string) =>
          issue.addIssue({ code: 'custom', message: `expected ${expected} (entry ${i + 1} is not that)` });
        const [token = '', tenant = '', mode = '', ...rest] = entry.split(':');
        const [, given] = /^sha256-([0-9a-f]{64})$/.exec(token) ?? [];
        if (!/^[\x21-\x7e]{16,}$/.test(token)) complain('a token of at least 16 printable characters');
        if (rest.length > 0 || (mode !== '' && mode !== 'ro'))
          complain('token, token:tenant or token:tenant:ro');
        if (tenant === 'ro' && mode === '') complain('token::ro for a read-only token of all tenants');
        if (tenant.length > 128) complain('a tenant of at most 128 characters');
        const digest = given ?? createHash('sha256').update(token).digest('hex');
        return { digest, tenant: tenant === '' ? null : tenant, readOnly: mode === 'ro' };
      }),
  )
  .describe('expected entries of token[:tenant][:ro] separated by commas');

/** An upper bound that may be left out; 0 is no way to say "none". */
const limit = (unit: string) => integer(1, 1_000_000_000, unit).nullable().default(null);

const MAX_MONEY = 1_000_000_000;
const money = z.number().min(0).max(MAX_MONEY);
/** An amount of the currency of PRICES; 0 means that nothing may be spent. */
const budget = z
  .string()
  .superRefine((text, issue) => {
    if (!(/^\d{1,10}(\.\d{1,6})?$/.test(text) && Number(text) <= MAX_MONEY))
      issue.addIssue({
        code: 'custom',
        message: `expected an amount such as 250 or 0.32, at most ${MAX_MONEY}, got ${JSON.stringify(text)}`,
      });
  })
  .transform(Number)
  .describe('expected an amount such as 250 or 0.32')
  .nullable()
  .default(null);

/** A JSON object; each problem in it is named by its path. */
function jsonObject<T extends z.ZodType>(schema: T, example: string) {
  const read = z.string().transform((text, issue): z.output<T> => {
    let value: unknown;
    let nameless = false;
    try {
      value = JSON.parse(text, (name, inner: unknown) => {
        nameless ||= name === '__proto__';
        return inner;
      });
    } catch {
      issue.addIssue({ code: 'custom', message: `expected JSON such as ${example}` });
      return z.NEVER;
    }
    // No object of the language can be relied on to hold it: what is set for it would be left out unseen.
    if (nameless) {
      issue.addIssue({ code: 'custom', message: 'expected any name but __proto__' });
      return z.NEVER;
    }
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    for (const { path, message } of parsed.error.issues) {
      const place = path.length > 0 ? `${path.join('.')}: ` : '';
      issue.addIssue({ code: 'custom', message: `${place}${message} (expected JSON such as ${example})` });
    }
    return z.NEVER;
  });
  return read.describe(`expected JSON such as ${example}`);
}

const tenantName = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[^\p{Cc}]*$/u);
const tenants = jsonObject(
  z.record(
    tenantName,
    z.strictObject({
      weight: z.number().min(0.001).max(1000).optional(),
      maxInFlight: z.int().min(1).max(1_000_000_000).optional(),
      budgetPerDay: money.optional(),
    }),
  ),
  '{"acme":{"weight":3,"maxInFlight":5,"budgetPerDay":20}}',
);
/** Less than is counted (limits/prices.ts) would cost nothing, and no budget would ever hold. */
const price = money.refine((amount) => amount === 0 || amount >= 1e-6, {
  error: 'expected 0 or at least 0.000001',
});
const prices = jsonObject(
  // As the seconds of a request are written: what is spelled otherwise would never be found.
  z.record(
    z.string().min(1).max(64),
    z.union([price, z.record(z.string().regex(/^(\*|[1-9]\d{0,3})$/), price)]),
  ),
  '{"gen4":{"5":0.32,"10":0.64},"*":0.5}',
);

const keyTemplate = z
  .string()
  .superRefine((text, issue) => {
    for (const { message } of keyTemplateProblems(text)) issue.addIssue({ code: 'custom', message });
  })
  .describe('expected a folder with placeholders, {generationId} among them');

/** Name → reader. Defaults are texts, as they would stand in the environment. */
const shape = {
  COMETAPI_KEY: headerSafe.default(''),
  COMETAPI_BASE_URL: apiOrigin.default('https://api.cometapi.com'),
  COMETAPI_QUOTA_KEY: headerSafe.default(''),
  COMETAPI_QUOTA_URL: httpUrl().default('https://query.cometapi.com'),
  RUNWAY_VERSION: headerSafe.default('2024-11-06'),
  REDIS_URL: redisUrl.default('redis://127.0.0.1:6379'),
  REDIS_SENTINELS: addressList.default([]),
  REDIS_SENTINEL_NAME: headerSafe.default('mymaster'),
  REDIS_SENTINEL_PASSWORD: z.string().default(''),
  REDIS_CLUSTER_NODES: addressList.default([]),
  REDIS_TLS_CA_FILE: z.string().default(''),
  REDIS_TLS_CERT_FILE: z.string().default(''),
  REDIS_TLS_KEY_FILE: z.string().default(''),
  REDIS_TLS_VERIFY: flag.default(true),
  REDIS_PREFIX: z
    .string()
    .regex(/^[^\s{}]*\{[^\s{}]+\}[^\s{}]*$/, {
      error: (issue) =>
        `expected a name with one hash tag such as {reelhaul}, got ${JSON.stringify(issue.input)}`,
    })
    .describe('expected a name with one hash tag such as {reelhaul}')
    .default('{reelhaul}'),
  STORAGE_URL: storageUrl.default('file:./archive'),
  PUBLIC_URL: httpUrl().default(''),
  CALLBACK_SECRET: callbackSecrets.default([]),
  CALLBACK_PLACEHOLDER_URL: url(['https:', 'http:']).default('https://example.com/webhook'),
  API_TOKENS: tokenList.default([]),
  TENANT_ADOPT: flag.default(false),
  DASHBOARD_USER: z.string().default(''),
  DASHBOARD_PASSWORD: z.string().default(''),
  DASHBOARD_VIEWER_USER: z.string().default(''),
  DASHBOARD_VIEWER_PASSWORD: z.string().default(''),
  API_RATE_LIMIT: integer(0, 1_000_000, 'requests per minute').default(600),
  BASE_PATH: basePath.default(''),
  TRUSTED_PROXIES: proxyList.default([]),
  API_MAX_QUEUED: integer(0, 1_000_000_000, 'generations').default(100_000),
  API_MAX_QUEUED_BYTES: integer(0, Number.MAX_SAFE_INTEGER, 'bytes').default(256 * 1024 * 1024),
  PORT: integer(0, 65_535, 'a port').default(3000),
  WORKER_PORT: workerPort.default(0),
  LOG_LEVEL: oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent').default('info'),
  SHUTDOWN_TIMEOUT_MS: milliseconds(100).default(100_000),
  SWEEP_INTERVAL_MS: milliseconds(100).default(60_000),
  IDEMPOTENCY_TTL_MS: milliseconds(1000).default(7 * 24 * 3_600_000),
  JOB_LOCK_MS: milliseconds(1000).default(30_000),
  RETENTION_MS: milliseconds(1000).default(30 * 24 * 3_600_000),
  FILES_RETENTION_MS: milliseconds(1000).nullable().default(null),
  LEDGER_WAIT_REPLICAS: integer(0, 10, 'replicas').default(0),
  LEDGER_WAIT_AOF: flag.default(false),
  LEDGER_WAIT_TIMEOUT_MS: milliseconds(1).default(3000),
  LEDGER_HOLD_MS: milliseconds().default(5000),

  SUBMIT_CONCURRENCY: count().default(10),
  SUBMIT_TIMEOUT_MS: milliseconds(100).default(90_000),
  SUBMIT_ATTEMPTS: count().default(20),
  SUBMIT_BACKOFF_MS: milliseconds(1).default(1000),
  SUBMIT_5XX_POLICY: oneOf('unconfirmed', 'retry').default('unconfirmed'),
  SUBMIT_NOT_ACCEPTED_CODES: codeList.default(['model_not_found']),
  UNCONFIRMED_POLICY: oneOf('hold', 'resubmit', 'fail').default('hold'),
  UNCONFIRMED_WAIT_MS: milliseconds().default(600_000),
  REFUSED_PROBE_MS: milliseconds(10).default(60_000),

  INPUT_URL_CHECK: flag.default(true),
  INPUT_TIMEOUT_MS: milliseconds(100).default(30_000),
  INPUT_ATTEMPTS: count().default(5),
  INPUT_BACKOFF_MS: milliseconds(1).default(2000),
  INPUT_UNUSED_MS: milliseconds(1000).default(24 * 3_600_000),

  MAX_IN_FLIGHT: limit('generations at once'),
  MAX_IN_FLIGHT_PER_TENANT: limit('generations at once'),
  PROVIDER_RATE_MAX: limit('calls per window'),
  PROVIDER_RATE_WINDOW_MS: milliseconds(100).default(60_000),
  PROVIDER_RATE_FIRST: oneOf('poll', 'submit').default('poll'),
  BREAKER_FAILURES: count().default(5),
  BREAKER_PROBE_MS: milliseconds(10).default(15_000),
  TENANTS: tenants.default({}),
  PRICES: prices.default({}),
  BUDGET_PER_DAY: budget,
  BUDGET_PER_TENANT_PER_DAY: budget,
  OVER_BUDGET: oneOf('wait', 'fail').default('wait'),
  UNKNOWN_PRICE: oneOf('refuse', 'allow').default('refuse'),

  POLL_CONCURRENCY: count().default(50),
  POLL_TIMEOUT_MS: milliseconds(100).default(30_000),
  POLL_FIRST_DELAY_MS: milliseconds().default(5000),
  POLL_MIN_INTERVAL_MS: milliseconds(1).default(5000),
  POLL_MAX_INTERVAL_MS: milliseconds(1).default(60_000),
  NOT_VISIBLE_GRACE_MS: milliseconds().default(120_000),
  NO_URL_GRACE_MS: milliseconds().default(120_000),
  GENERATION_DEADLINE_MS: milliseconds(1).default(1_800_000),
  LATE_CHECK_INTERVAL_MS: milliseconds(1).default(600_000),
  LATE_CHECK_FOR_MS: milliseconds().default(24 * 3_600_000),

  ARCHIVE_CONCURRENCY: count().default(5),
  ARCHIVE_TIMEOUT_MS: milliseconds(100).default(900_000),
  ARCHIVE_IDLE_TIMEOUT_MS: milliseconds(100).default(30_000),
  ARCHIVE_ATTEMPTS: count().default(8),
  ARCHIVE_BACKOFF_MS: milliseconds(1).default(2000),
  ARCHIVE_OUTAGE_MS: milliseconds().default(6 * 3_600_000),
  ARCHIVE_KEY_TEMPLATE: keyTemplate.default(DEFAULT_KEY_TEMPLATE),
  ARCHIVE_MAX_BYTES: integer(1, Number.MAX_SAFE_INTEGER, 'bytes').default(5_000_000_000),
  ARCHIVE_ALLOW_HOSTS: hostList.default([]),
  ARCHIVE_ONLY_ALLOWED: flag.default(false),
  ARCHIVE_USER_AGENT: z
    .string()
    .regex(/^[\x20-\x7e]+$/, { error: 'expected printable ASCII characters' })
    .describe('expected printable ASCII characters')
    .default('reelhaul'),

  NOTIFY_SECRET: webhookSecrets.default([]),
  NOTIFY_CONCURRENCY: count().default(20),
  NOTIFY_TIMEOUT_MS: milliseconds(100).default(15_000),
  NOTIFY_ATTEMPTS: count().default(20),
  NOTIFY_BACKOFF_MS: milliseconds(1).default(5000),
  NOTIFY_ALLOW_HOSTS: hostList.default([]),
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
