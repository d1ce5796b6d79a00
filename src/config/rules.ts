/** What settings must be to each other. */
import type { Problem } from '../errors.js';
import type { Config } from './settings.js';

/** Guessing is slowed down to some ten thousand tries a day: this many characters outlast that. */
const MIN_PASSWORD_LENGTH = 12;

interface Rule {
  /** The settings it reads, first the one that the problem names. It is left out while one of them is unreadable. */
  readonly of: readonly (keyof Config)[];
  readonly isBroken: (config: Config) => boolean;
  readonly message: (config: Config) => string;
}

const rule = (of: Rule['of'], isBroken: Rule['isBroken'], message: string | Rule['message']): Rule => ({
  of,
  isBroken,
  message: typeof message === 'string' ? () => message : message,
});

const budgetsOf = ({ BUDGET_PER_DAY, BUDGET_PER_TENANT_PER_DAY, TENANTS }: Config) => [
  BUDGET_PER_DAY,
  BUDGET_PER_TENANT_PER_DAY,
  ...Object.values(TENANTS).map(({ budgetPerDay }) => budgetPerDay ?? null),
];

const RULES: readonly Rule[] = [
  rule(
    ['REDIS_CLUSTER_NODES', 'REDIS_SENTINELS'],
    (config) => config.REDIS_CLUSTER_NODES.length > 0 && config.REDIS_SENTINELS.length > 0,
    'expected this or REDIS_SENTINELS, got both: a Cluster fails over by itself',
  ),
  rule(
    ['REDIS_URL', 'REDIS_CLUSTER_NODES'],
    (config) => config.REDIS_CLUSTER_NODES.length > 0 && /\/0*[1-9]\d*$/.test(config.REDIS_URL),
    'expected no number of a database, since a Cluster has only database 0',
  ),
  rule(
    ['REDIS_TLS_CERT_FILE', 'REDIS_TLS_KEY_FILE'],
    (config) => (config.REDIS_TLS_CERT_FILE === '') !== (config.REDIS_TLS_KEY_FILE === ''),
    'expected together with REDIS_TLS_KEY_FILE, or neither',
  ),
  rule(
    ['REDIS_URL', 'REDIS_TLS_CA_FILE', 'REDIS_TLS_CERT_FILE', 'REDIS_TLS_VERIFY'],
    (config) =>
      (config.REDIS_TLS_CA_FILE + config.REDIS_TLS_CERT_FILE !== '' || !config.REDIS_TLS_VERIFY) &&
      !config.REDIS_URL.startsWith('rediss:'),
    'expected rediss://, since settings of TLS are given',
  ),
  ...(['DASHBOARD', 'DASHBOARD_VIEWER'] as const).flatMap((role) => [
    rule(
      [`${role}_USER`],
      (config) => /[:\p{Cc}]/u.test(config[`${role}_USER`]),
      'expected a name without a colon',
    ),
    rule(
      [`${role}_USER`, `${role}_PASSWORD`],
      (config) => config[`${role}_USER`] === '' && config[`${role}_PASSWORD`] !== '',
      `expected a name beside ${role}_PASSWORD`,
    ),
    rule(
      [`${role}_PASSWORD`, `${role}_USER`],
      (config) => config[`${role}_USER`] !== '' && config[`${role}_PASSWORD`].length < MIN_PASSWORD_LENGTH,
      `expected at least ${MIN_PASSWORD_LENGTH} characters beside ${role}_USER`,
    ),
  ]),
  rule(
    ['DASHBOARD_USER', 'DASHBOARD_VIEWER_USER'],
    (config) => config.DASHBOARD_VIEWER_USER !== '' && config.DASHBOARD_USER === '',
    'expected one beside DASHBOARD_VIEWER_USER',
  ),
  rule(
    ['DASHBOARD_VIEWER_USER', 'DASHBOARD_USER'],
    (config) => config.DASHBOARD_USER !== '' && config.DASHBOARD_USER === config.DASHBOARD_VIEWER_USER,
    'expected another name than DASHBOARD_USER',
  ),
  rule(
    ['CALLBACK_SECRET', 'PUBLIC_URL'],
    (config) => config.PUBLIC_URL !== '' && config.CALLBACK_SECRET.length === 0,
    'expected at least 16 characters, the same for every replica, since PUBLIC_URL is set',
  ),
  rule(
    ['UNCONFIRMED_WAIT_MS', 'UNCONFIRMED_POLICY', 'SUBMIT_TIMEOUT_MS'],
    (config) =>
      config.UNCONFIRMED_POLICY === 'resubmit' && config.UNCONFIRMED_WAIT_MS < config.SUBMIT_TIMEOUT_MS,
    ({ SUBMIT_TIMEOUT_MS, UNCONFIRMED_WAIT_MS }) =>
      `expected at least SUBMIT_TIMEOUT_MS (${SUBMIT_TIMEOUT_MS}), got ${UNCONFIRMED_WAIT_MS}: with UNCONFIRMED_POLICY=resubmit the first call could still be under way, and both be billed`,
  ),
  rule(
    ['POLL_MAX_INTERVAL_MS', 'POLL_MIN_INTERVAL_MS'],
    (config) => config.POLL_MAX_INTERVAL_MS < config.POLL_MIN_INTERVAL_MS,
    (config) => `expected at least POLL_MIN_INTERVAL_MS, got ${config.POLL_MAX_INTERVAL_MS}`,
  ),
  rule(
    ['RETENTION_MS', 'IDEMPOTENCY_TTL_MS'],
    (config) => config.RETENTION_MS < config.IDEMPOTENCY_TTL_MS,
    'expected at least IDEMPOTENCY_TTL_MS: a remembered key must not outlive its generation',
  ),
  rule(
    ['FILES_RETENTION_MS', 'RETENTION_MS'],
    (config) => config.FILES_RETENTION_MS !== null && config.FILES_RETENTION_MS > config.RETENTION_MS,
    ({ RETENTION_MS, FILES_RETENTION_MS }) =>
      `expected at most RETENTION_MS (${RETENTION_MS}), since only the record names the files, got ${FILES_RETENTION_MS}`,
  ),
  rule(
    ['PRICES', 'BUDGET_PER_DAY', 'BUDGET_PER_TENANT_PER_DAY', 'TENANTS'],
    (config) =>
      budgetsOf(config).some((amount) => amount !== null) && Object.keys(config.PRICES).length === 0,
    'expected a price table, since a budget is set',
  ),
];

/** What contradicts itself among the settings that can be read. */
export const contradictions = (config: Config, unreadable: ReadonlySet<string>): Problem[] =>
  RULES.flatMap(({ of, isBroken, message }) =>
    of.some((name) => unreadable.has(name)) || !isBroken(config)
      ? []
      : [{ path: of[0]!, message: message(config) }],
  );
