/** The doctor's look at the settings: which are set, with secrets hidden, and what they come to together. */
import { misspeltSettings, VARIABLES, type Config } from '../../config/config.js';
import { type ConfigError, withoutSecrets } from '../../errors.js';
import { failed, warning, type Finding } from './finding.js';

const SECRETS = /KEY$|SECRET|PASSWORD|TOKEN/;

/** The settings that are not the defaults, with secrets hidden. */
export function describeConfig(config: Config, defaults: Config): string[] {
  const shown = (name: string, value: unknown) => {
    if (SECRETS.test(name)) return String(value) === '' ? '(not set)' : '(set)';
    if (name === 'REDIS_URL') return new URL(String(value)).host;
    return withoutSecrets(typeof value === 'string' ? value : JSON.stringify(value));
  };
  return VARIABLES.flatMap((name) => {
    const key = name as keyof Config;
    const value = shown(name, config[key]);
    return value === shown(name, defaults[key]) ? [] : [`${name}=${value}`];
  });
}

/** Every setting that cannot be read. Nothing else is looked at: with these, no process starts. */
export function examineUnreadable({ problems }: ConfigError, environment: NodeJS.ProcessEnv): Finding[] {
  return [
    ...problems.map(({ path, message }) => failed(path, `${message}. Set it so.`)),
    ...examineSpelling(environment),
    warning('settings', 'nothing else was looked at. Mend these first, and ask again.'),
  ];
}

/** What is set and read by nothing, since its name is misspelt. */
const examineSpelling = (environment: NodeJS.ProcessEnv): Finding[] =>
  misspeltSettings(environment).map(({ path, message }) => warning(path, message));

/** What can be read, and is doubtful all the same. */
const DOUBTS: readonly (readonly [keyof Config, (config: Config) => boolean, string])[] = [
  [
    'SHUTDOWN_TIMEOUT_MS',
    ({ SHUTDOWN_TIMEOUT_MS, SUBMIT_TIMEOUT_MS }) => SHUTDOWN_TIMEOUT_MS < SUBMIT_TIMEOUT_MS,
    'is shorter than SUBMIT_TIMEOUT_MS: a deploy can cut a paid call, which is then unconfirmed. Raise it.',
  ],
  [
    'SUBMIT_TIMEOUT_MS',
    ({ SUBMIT_TIMEOUT_MS }) => SUBMIT_TIMEOUT_MS < 60_000,
    'is below 60 s: the provider was seen to take 21 s, and what is cut off is unconfirmed. Raise it.',
  ],
  [
    'SUBMIT_5XX_POLICY',
    ({ SUBMIT_5XX_POLICY }) => SUBMIT_5XX_POLICY === 'retry',
    'is retry: a 500 that hides an accepted task is billed twice. Set unconfirmed, unless you know that none does.',
  ],
  [
    'UNCONFIRMED_POLICY',
    ({ UNCONFIRMED_POLICY }) => UNCONFIRMED_POLICY === 'resubmit',
    'is resubmit: what is unclear is submitted once more, and may be billed twice. Set hold, to be asked.',
  ],
];

export function examineConfig(config: Config, environment: NodeJS.ProcessEnv): Finding[] {
  return [
    ...examineSpelling(environment),
    ...(config.COMETAPI_KEY === ''
      ? [failed('COMETAPI_KEY', 'is not set: workers will not start. Set it.')]
      : []),
    ...DOUBTS.flatMap(([name, isDoubtful, message]) => (isDoubtful(config) ? [warning(name, message)] : [])),
  ];
}
