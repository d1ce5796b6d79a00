/** `doctor`: looks at everything a worker stands on. */
import type { Command } from 'commander';
import type { Config } from '../../config/config.js';
import type { Finding } from './finding.js';
import { ConfigError } from '../../errors.js';
import { loggerFor } from '../session.js';
import { print } from '../terminal.js';

export interface Consultation {
  readonly findings: readonly Finding[];
  /** Null when they cannot be read, which is a finding as well. */
  readonly settings: readonly string[] | null;
}

/** Examines what a worker with the settings of this environment needs. */
export async function consultDoctor(environment: NodeJS.ProcessEnv): Promise<Consultation> {
  const { readConfig } = await import('../../config/config.js');
  const { examine } = await import('./examine.js');
  const { describeConfig, examineUnreadable } = await import('./settings.js');
  let config: Config;
  try {
    config = readConfig(environment);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { findings: examineUnreadable(error, environment), settings: null };
  }
  const log = await loggerFor({ ...config, LOG_LEVEL: 'silent' });
  const findings = await examine(config, log, environment);
  return { findings, settings: describeConfig(config, readConfig({})) };
}

/** The lines that people, or with `json` programs, read. */
export function linesOf({ findings, settings }: Consultation, json: boolean): string[] {
  if (json) {
    const all =
      settings === null
        ? findings
        : [...findings, { level: 'ok', about: 'settings', message: settings.join(' ') }];
    return all.map((finding) => JSON.stringify(finding));
  }
  return [
    ...findings.map(({ level, about, message }) => `${level.padEnd(7)}  ${about}: ${message}`),
    ...(settings ?? []).map((line) => `setting  ${line}`),
  ];
}

export const exitCodeOf = ({ findings }: Consultation): 0 | 1 =>
  findings.some(({ level }) => level === 'error') ? 1 : 0;

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check what a worker needs, and say what to do; exit code 1 for an error')
    .option('--json', 'one finding per line')
    .action(async ({ json = false }: { json?: boolean }) => {
      const consultation = await consultDoctor(process.env);
      for (const line of linesOf(consultation, json)) print(line);
      process.exitCode = exitCodeOf(consultation);
    });
}
