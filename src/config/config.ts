/**
 * The configuration: read once from the environment, checked as a whole, frozen. Every problem is named in one
 * message, with what was expected and what was got; a secret is never repeated in it.
 */
import { z } from 'zod';
import { didYouMean } from '../generation/did-you-mean.js';
import { ConfigError, type Problem } from '../errors.js';
import { contradictions } from './rules.js';
import { schema, shape, type Config } from './settings.js';

export type { Config };

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
