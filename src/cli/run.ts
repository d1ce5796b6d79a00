/**
 * The command line: the same words as the library, and the processes that run for long. People get tables and plain
 * messages, programs `--json`. Each command loads what it needs when it runs.
 */
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { addDemo } from './demo/command.js';
import { addDoctor } from './doctor/command.js';
import { addEnqueue } from './enqueue.js';
import { addGenerations } from './generations.js';
import { addLimits } from './limits.js';
import { addNotifications } from './notifications.js';
import { addProcesses } from './processes.js';
import { addSimulate } from './simulate.js';
import { complain, explain } from './terminal.js';
import { packageVersion } from '../version.js';

/** Names of earlier versions, which scripts may still use. */
const FORMER_NAMES: Readonly<Record<string, string>> = {
  waitFor: 'wait-for',
  retryNotification: 'retry-notification',
};

function commands(): Command {
  const program = new Command('reelhaul')
    .description(
      'Submits AI video generations once, polls them, and stores the videos, verified, in your own storage.',
    )
    .version(packageVersion())
    .exitOverride()
    .showHelpAfterError('(--help shows the usage)');
  addEnqueue(program);
  addGenerations(program);
  addLimits(program);
  addNotifications(program);
  addDoctor(program);
  addProcesses(program);
  addSimulate(program);
  addDemo(program, fileURLToPath(new URL('main.js', import.meta.url)));
  return program;
}

/**
 * Runs one command and sets `process.exitCode`: 1 not done (the message says why), 2 the command line was wrong.
 * @param args without node and the program.
 */
export async function run([command = '', ...rest]: readonly string[]): Promise<void> {
  try {
    const args = [FORMER_NAMES[command] ?? command, ...rest].filter(Boolean);
    await commands().parseAsync(args, { from: 'user' });
  } catch (error) {
    const usage =
      error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number'
        ? error.exitCode
        : null;
    if (usage === null) complain(explain(error));
    // Commander has said it already; its 1 means that the command line was wrong.
    process.exitCode = usage === null ? 1 : usage === 0 ? 0 : 2;
  }
}
