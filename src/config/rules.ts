/** What settings must be to each other. Each rule names the settings it reads: it is left out while one is unreadable. */
import type { Problem } from '../errors.js';
import type { Config } from './settings.js';

/** Guessing is slowed down to some ten thousand tries a day: this many characters outlast that. */
const MIN_PASSWORD_LENGTH = 12;

type Complain = (path: keyof Config, message: string) => void;

interface Rule {
  readonly of: readonly (keyof Config)[];
  readonly check: (config: Config, complain: Complain) => void;
}

const redisRules: readonly Rule[] = [
  {
    of: ['REDIS_CLUSTER_NODES', 'REDIS_SENTINELS'],
    check(config, complain) {
      if (config.REDIS_CLUSTER_NODES.length > 0 && config.REDIS_SENTINELS.length > 0)
        complain(
          'REDIS_CLUSTER_NODES',
          'expected this or REDIS_SENTINELS, got both: a Cluster fails over by itself',
        );
    },
  },
  {
    of: ['REDIS_CLUSTER_NODES', 'REDIS_URL'],
    check(config, complain) {
      if (config.REDIS_CLUSTER_NODES.length > 0 && /\/0*[1-9]\d*$/.test(config.REDIS_URL))
        complain('REDIS_URL', 'expected no number of a database, since a Cluster has only database 0');
    },
  },
  {
    of: ['REDIS_TLS_CERT_FILE', 'REDIS_TLS_KEY_FILE'],
    check(config, complain) {
      if ((config.REDIS_TLS_CERT_FILE === '') !== (config.REDIS_TLS_KEY_FILE === ''))
        complain('REDIS_TLS_CERT_FILE', 'expected together with REDIS_TLS_KEY_FILE, or neither');
    },
  },
  {
    of: ['REDIS_TLS_CA_FILE', 'REDIS_TLS_CERT_FILE', 'REDIS_TLS_VERIFY', 'REDIS_URL'],
    check(config, complain) {
      const wantsTls =
        config.REDIS_TLS_CA_FILE + config.REDIS_TLS_CERT_FILE !== '' || !config.REDIS_TLS_VERIFY;
      if (wantsTls && !config.REDIS_URL.startsWith('rediss:'))
        complain('REDIS_URL', 'expected rediss://, since settings of TLS are given');
    },
  },
];

const loginRules: readonly Rule[] = [
  ...(['DASHBOARD', 'DASHBOARD_VIEWER'] as const).map((role): Rule => ({
    of: [`${role}_USER`, `${role}_PASSWORD`],
    check(config, complain) {
      const [user, password] = [config[`${role}_USER`], config[`${role}_PASSWORD`]];
      if (/[:\p{Cc}]/u.test(user)) complain(`${role}_USER`, 'expected a name without a colon');
      if (user === '' && password !== '') complain(`${role}_USER`, `expected a name beside ${role}_PASSWORD`);
      if (user !== '' && password.length < MIN_PASSWORD_LENGTH)
        complain(
          `${role}_PASSWORD`,
          `expected at least ${MIN_PASSWORD_LENGTH} characters beside ${role}_USER`,
        );
    },
  })),
  {
    of: ['DASHBOARD_USER', 'DASHBOARD_VIEWER_USER'],
    check(config, complain) {
      if (config.DASHBOARD_VIEWER_USER !== '' && config.DASHBOARD_USER === '')
        complain('DASHBOARD_USER', 'expected one beside DASHBOARD_VIEWER_USER');
      else if (config.DASHBOARD_USER !== '' && config.DASHBOARD_USER === config.DASHBOARD_VIEWER_USER)
        complain('DASHBOARD_VIEWER_USER', 'expected another name than DASHBOARD_USER');
    },
  },
];

const stageRules: readonly Rule[] = [
  {
    of: ['PUBLIC_URL', 'CALLBACK_SECRET'],
    check(config, complain) {
      if (config.PUBLIC_URL && config.CALLBACK_SECRET.length === 0)
        complain(
          'CALLBACK_SECRET',
          'expected at least 16 characters, the same for every replica, since PUBLIC_URL is set',
        );
    },
  },
  {
    of: ['UNCONFIRMED_POLICY', 'UNCONFIRMED_WAIT_MS', 'SUBMIT_TIMEOUT_MS'],
    check(config, complain) {
      const { UNCONFIRMED_POLICY, UNCONFIRMED_WAIT_MS, SUBMIT_TIMEOUT_MS } = config;
      if (UNCONFIRMED_POLICY === 'resubmit' && UNCONFIRMED_WAIT_MS < SUBMIT_TIMEOUT_MS)
        complain(
          'UNCONFIRMED_WAIT_MS',
          `expected at least SUBMIT_TIMEOUT_MS (${SUBMIT_TIMEOUT_MS}), got ${UNCONFIRMED_WAIT_MS}: with UNCONFIRMED_POLICY=resubmit the first call could still be under way, and both be billed`,
        );
    },
  },
  {
    of: ['POLL_MAX_INTERVAL_MS', 'POLL_MIN_INTERVAL_MS'],
    check(config, complain) {
      if (config.POLL_MAX_INTERVAL_MS < config.POLL_MIN_INTERVAL_MS)
        complain(
          'POLL_MAX_INTERVAL_MS',
          `expected at least POLL_MIN_INTERVAL_MS, got ${config.POLL_MAX_INTERVAL_MS}`,
        );
    },
  },
  {
    of: ['RETENTION_MS', 'IDEMPOTENCY_TTL_MS'],
    check(config, complain) {
      if (config.RETENTION_MS < config.IDEMPOTENCY_TTL_MS)
        complain(
          'RETENTION_MS',
          'expected at least IDEMPOTENCY_TTL_MS: a remembered key must not outlive its generation',
        );
    },
  },
  {
    of: ['FILES_RETENTION_MS', 'RETENTION_MS'],
    check({ FILES_RETENTION_MS, RETENTION_MS }, complain) {
      if (FILES_RETENTION_MS !== null && FILES_RETENTION_MS > RETENTION_MS)
        complain(
          'FILES_RETENTION_MS',
          `expected at most RETENTION_MS (${RETENTION_MS}), since only the record names the files, got ${FILES_RETENTION_MS}`,
        );
    },
  },
  {
    of: ['BUDGET_PER_DAY', 'BUDGET_PER_TENANT_PER_DAY', 'TENANTS', 'PRICES'],
    check(config, complain) {
      const budgets = [
        config.BUDGET_PER_DAY,
        config.BUDGET_PER_TENANT_PER_DAY,
        ...Object.values(config.TENANTS).map(({ budgetPerDay }) => budgetPerDay ?? null),
      ];
      if (budgets.some((amount) => amount !== null) && Object.keys(config.PRICES).length === 0)
        complain('PRICES', 'expected a price table, since a budget is set');
    },
  },
];

/** What contradicts itself among the settings that can be read. */
export function contradictions(config: Config, unreadable: ReadonlySet<string>): Problem[] {
  const problems: Problem[] = [];
  for (const { of, check } of [...redisRules, ...loginRules, ...stageRules]) {
    if (!of.some((name) => unreadable.has(name)))
      check(config, (path, message) => problems.push({ path, message }));
  }
  return problems;
}
