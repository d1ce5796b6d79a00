/**
 * How the text of a setting is read. Each reader describes what it expects, in the words of its error message: the docs
 * are made from these descriptions. A secret is never repeated in a message.
 */
import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { z } from 'zod';
import { problemsOf, withoutSecrets } from '../errors.js';
import { parseAllowedHosts } from '../outbound/address-rules.js';
import { storageUrlProblems } from '../storage/open.js';
import { keyTemplateProblems } from '../storage/paths.js';

const MAX_MS = 365 * 24 * 3_600_000;
const MAX_MONEY = 1_000_000_000;

const got = (value: unknown) => `, got ${typeof value === 'string' ? JSON.stringify(value) : String(value)}`;
const parts = (text: string) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean);
/** Unlike `addIssue` with a text, this lets the later checks run: every problem is named. */
const complain = (issue: z.RefinementCtx, message: string) => issue.addIssue({ code: 'custom', message });

const list = z.string().transform(parts);

/** A text of this form; what was got is named. */
const pattern = (form: RegExp, expected: string) =>
  z
    .string()
    .regex(form, { error: ({ input }) => expected + got(input) })
    .describe(expected);

/** The same for secrets: what was got is not repeated. */
const secretPattern = (form: RegExp, expected: string) =>
  z.string().regex(form, { error: expected }).describe(expected);

export function integer(min: number, max: number, unit: string) {
  const expected = `expected a whole number of ${unit} from ${min} to ${max}`;
  return pattern(/^-?\d{1,16}$/, expected)
    .transform(Number)
    .refine((n) => n >= min && n <= max, { error: ({ input }) => expected + got(input) })
    .describe(expected);
}
export const milliseconds = (min = 0) => integer(min, MAX_MS, 'milliseconds');
export const count = () => integer(1, 10_000, 'things at once or tries');
/** An upper bound that may be left out; 0 is no way to say "none". */
export const limit = (unit: string) => integer(1, 1_000_000_000, unit).nullable().default(null);

export const flag = z
  .enum(['true', 'false', '1', '0'], { error: ({ input }) => `expected true or false${got(input)}` })
  .transform((text) => text === 'true' || text === '1')
  .describe('expected true or false');

export function oneOf<const T extends readonly string[]>(...words: T) {
  const expected = `expected one of ${words.join(', ')}`;
  return z.enum(words, { error: ({ input }) => expected + got(input) }).describe(expected);
}

export const headerSafe = secretPattern(/^[\x21-\x7e]+$/, 'expected printable characters without spaces');
export const userAgent = secretPattern(/^[\x20-\x7e]+$/, 'expected printable ASCII characters');
export const prefix = pattern(
  /^[^\s{}]*\{[^\s{}]+\}[^\s{}]*$/,
  'expected a name with one hash tag such as {reelhaul}',
);
export const basePath = pattern(/^(\/[\w.~-]+)+$/, 'expected a path such as /reels, without a / at its end');

export function url(protocols: readonly string[], { secret = false } = {}) {
  const expected = `expected a URL that starts with ${protocols.map((p) => `${p}//`).join(' or ')}`;
  return z
    .string()
    .superRefine((text, issue) => {
      if (!(URL.canParse(text) && protocols.includes(new URL(text).protocol)))
        complain(issue, secret ? expected : expected + got(withoutSecrets(text)));
    })
    .describe(expected);
}

/** Never repeated in a message, since it may hold a password. */
export const redisUrl = url(['redis:', 'rediss:'], { secret: true })
  .superRefine((text, issue) => {
    if (!URL.canParse(text)) return;
    const { pathname, username, password } = new URL(text);
    if (!/^\/?\d{0,4}$/.test(pathname))
      complain(issue, 'expected nothing but the number of a database after the host, such as /0');
    try {
      decodeURIComponent(username + password);
    } catch {
      complain(issue, 'expected user and password percent-encoded (% as %25, / as %2F, @ as %40)');
    }
  })
  .describe('expected a URL that starts with redis:// or rediss://');

/** The beginning of addresses: paths are put behind it, which parameters would swallow; a login would be sent and shown. */
export const httpUrl = url(['https:', 'http:'])
  .superRefine((text, issue) => {
    if (!URL.canParse(text)) return;
    const { username, password, search, hash } = new URL(text);
    if (username + password + search + hash !== '')
      complain(issue, `expected no user name, parameters or fragment in it${got(withoutSecrets(text))}`);
  })
  .transform((text) => text.replace(/\/+$/, ''))
  .describe('expected a URL that starts with https:// or http://');

const ORIGIN = 'expected scheme, host and port alone, such as https://api.cometapi.com';
/** Of the API: reelhaul puts its own paths behind it, and any before them leads to something else than the API. */
export const apiOrigin = httpUrl
  .superRefine((text, issue) => {
    if (URL.canParse(text) && new URL(text).pathname !== '/')
      complain(issue, ORIGIN + got(withoutSecrets(text)));
  })
  .describe(ORIGIN);

/** Kubernetes gives every pod `WORKER_PORT=tcp://…` when its namespace has a Service named `worker`. */
export const workerPort = z
  .string()
  .refine((text) => !/^\w+:\/\//.test(text), {
    abort: true,
    error: ({ input }) =>
      `expected a port${got(input)}: Kubernetes sets this variable for a Service named "worker". ` +
      'Set enableServiceLinks: false in the pod spec, or rename the Service',
  })
  .pipe(integer(0, 65_535, 'a port'))
  .describe('expected a whole number of a port from 0 to 65535');

export const hostList = list
  .superRefine((entries, issue) => {
    for (const { message } of problemsOf(() => parseAllowedHosts(entries))) complain(issue, message);
  })
  .describe('expected host names, IPs or CIDRs separated by commas');

/** Of proxies only addresses are known: the other end of a connection has no name. */
export const proxyList = hostList
  .superRefine((entries, issue) => {
    for (const entry of entries)
      if (isIP(entry.split('/')[0]!) === 0) complain(issue, `expected IPs or CIDRs${got(entry)}`);
  })
  .describe('expected IPs or CIDRs separated by commas');

const ADDRESSES = 'expected host:port entries separated by commas';
/** An IPv6 address stands in brackets. */
export const addressList = list
  .transform((entries, issue) =>
    entries.map((entry) => {
      const [, host = '', port = ''] = /^\[?([^\s[\]]+?)\]?:(\d{1,5})$/.exec(entry) ?? [];
      if (host === '' || Number(port) < 1 || Number(port) > 65_535) complain(issue, ADDRESSES + got(entry));
      return { host, port: Number(port) };
    }),
  )
  .describe(ADDRESSES);

/** Codes of the provider; `none` stands for the empty list, since an empty value counts as not set. */
export const codeList = pattern(/^[\w.]+(\s*,\s*[\w.]+)*$/, 'expected codes separated by commas, or none')
  .transform((text) => parts(text.toLowerCase()).filter((code) => code !== 'none'))
  .describe('expected codes separated by commas, or none');

/** Standard Webhooks: `whsec_` and 24 to 64 bytes as base64. */
export const webhookSecrets = list
  .superRefine((secrets, issue) => {
    for (const [i, secret] of secrets.entries()) {
      const [, base64 = ''] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? [];
      const bytes = Buffer.from(base64, 'base64').length;
      if (base64.length % 4 !== 0 || bytes < 24 || bytes > 64)
        complain(issue, `expected whsec_ and 24 to 64 bytes as base64 (entry ${i + 1} is not that)`);
    }
  })
  .describe('expected entries of whsec_ and 24 to 64 bytes as base64, separated by commas');

const CALLBACK_SECRETS = 'expected secrets of at least 16 characters, separated by commas';
/** The first signs, all are accepted: one is changed without turning away what was made with the one before. */
export const callbackSecrets = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .superRefine((secrets, issue) => {
    for (const [i, { length }] of secrets.entries())
      if (length < 16) complain(issue, `${CALLBACK_SECRETS} (entry ${i + 1} is not that)`);
  })
  .describe(CALLBACK_SECRETS);

/**
 * `token[:tenant][:ro]` entries separated by commas. Only digests are kept, so that nothing that prints the
 * configuration can give a token away; one may also be given as `sha256-<hex>`, and is then nowhere at all.
 */
export const tokenList = list
  .transform((entries, issue) =>
    entries.map((entry, i) => {
      const refuse = (expected: string) =>
        complain(issue, `expected ${expected} (entry ${i + 1} is not that)`);
      const [token = '', tenant = '', mode = '', ...rest] = entry.split(':');
      const [, given] = /^sha256-([0-9a-f]{64})$/.exec(token) ?? [];
      if (!/^[\x21-\x7e]{16,}$/.test(token)) refuse('a token of at least 16 printable characters');
      if (rest.length > 0 || (mode !== '' && mode !== 'ro')) refuse('token, token:tenant or token:tenant:ro');
      if (tenant === 'ro' && mode === '') refuse('token::ro for a read-only token of all tenants');
      if (tenant.length > 128) refuse('a tenant of at most 128 characters');
      const digest = given ?? createHash('sha256').update(token).digest('hex');
      return { digest, tenant: tenant === '' ? null : tenant, readOnly: mode === 'ro' };
    }),
  )
  .describe('expected entries of token[:tenant][:ro] separated by commas');

export const storageUrl = z.string().superRefine((text, issue) => {
  for (const { path, message } of storageUrlProblems(text))
    complain(issue, path === 'STORAGE_URL' ? message : `${path}: ${message}`);
});

export const keyTemplate = z
  .string()
  .superRefine((text, issue) => {
    for (const { message } of keyTemplateProblems(text)) complain(issue, message);
  })
  .describe('expected a folder with placeholders, {generationId} among them');

const money = z.number().min(0).max(MAX_MONEY);
/** An amount of the currency of PRICES; 0 means that nothing may be spent. */
export const budget = z
  .string()
  .superRefine((text, issue) => {
    if (!(/^\d{1,10}(\.\d{1,6})?$/.test(text) && Number(text) <= MAX_MONEY))
      complain(issue, `expected an amount such as 250 or 0.32, at most ${MAX_MONEY}${got(text)}`);
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
      complain(issue, `expected JSON such as ${example}`);
      return z.NEVER;
    }
    // No object of the language can be relied on to hold it: what is set for it would be left out unseen.
    if (nameless) {
      complain(issue, 'expected any name but __proto__');
      return z.NEVER;
    }
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    for (const { path, message } of parsed.error.issues) {
      const place = path.length > 0 ? `${path.join('.')}: ` : '';
      complain(issue, `${place}${message} (expected JSON such as ${example})`);
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
export const tenants = jsonObject(
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
/** Less than is counted (generation/price.ts) would cost nothing, and no budget would ever hold. */
const price = money.refine((amount) => amount === 0 || amount >= 1e-6, {
  error: 'expected 0 or at least 0.000001',
});
export const prices = jsonObject(
  // As the seconds of a request are written: what is spelled otherwise would never be found.
  z.record(
    z.string().min(1).max(64),
    z.union([price, z.record(z.string().regex(/^(\*|[1-9]\d{0,3})$/), price)]),
  ),
  '{"gen4":{"5":0.32,"10":0.64},"*":0.5}',
);
