/** `doctor`: looks at everything a worker stands on. */
import type { Command } from 'commander';
import type { Config } from '../../config/config.js';
import type { Finding } from './finding.js';
import { ConfigError } from '../../errors.js';
import { loggerFor } from '../session.js';
import { print } from '../terminal.js';

/** Settings that cannot be read are findings as well: the doctor is who one asks then. They are null in that case. */
async function consultDoctor(): Promise<{
  findings: readonly Finding[];
  settings: readonly string[] | null;
}> {
  const [{ readConfig }, { examine }, { describeConfig, examineUnreadable }] = await Promise.all([
    import('../../config/config.js'),
    import('./examine.js'),
    import('./settings.js'),
  ]);
  let config: Config;
  try {
    config = readConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { findings: examineUnreadable(error), settings: null };
  }
  const findings = await examine(config, await loggerFor({ ...config, LOG_LEVEL: 'silent' }));
  return { findings, settings: describeConfig(config, readConfig({})) };
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check what a worker needs, and say what to do; exit code 1 for an error')
    .option('--json', 'one finding per line')
    .action(async ({ json }: { json?: boolean }) => {
      const { findings, settings } = await consultDoctor();
      if (json) {
        for (const finding of findings) print(JSON.stringify(finding));
        if (settings !== null)
          print(JSON.stringify({ level: 'ok', about: 'settings', message: settings.join(' ') }));
      } else {
        for (const { level, about, message } of findings) print(`${level.padEnd(7)}  ${about}: ${message}`);
        for (const line of settings ?? []) print(`setting  ${line}`);
      }
      const code = findings.some(({ level }) => level === 'error') ? 1 : 0;
      // What hangs was said above; it shall not hold up the end as well.
      process.stdout.write('', () => process.exit(code));
    });
}
