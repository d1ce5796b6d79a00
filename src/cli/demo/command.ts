/** `demo`: three generations all the way, or one that is really billed. */
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { InvalidInputError } from '../../errors.js';
import { askedToStop, readSettings } from '../session.js';
import { complain } from '../terminal.js';

/** @param cliFile the command line itself: the demo starts its worker by it. */
export function addDemo(program: Command, cliFile: string): void {
  program
    .command('demo')
    .description('run three generations to the end, with a Redis, a simulator and a worker of its own')
    .option('--live', 'one generation against the real provider instead: it is billed')
    .option('--prompt <text>', 'with --live: what to generate')
    .option('--image <url>', 'with --live: source image, https')
    .option('--yes', 'with --live: do not ask')
    .action(
      async (flags: { live?: boolean; prompt?: string; image?: string; yes?: boolean }, command: Command) => {
        if (flags.live && flags.prompt === undefined)
          command.error('error: --live needs --prompt <text>', { exitCode: 2 });
        if (flags.live && !(await billAccepted(flags.yes === true))) {
          complain('Nothing was submitted.');
          process.exitCode = 1;
          return;
        }
        const { runDemo } = await import('./demo.js');
        const interrupted = new AbortController();
        void askedToStop().then(() => interrupted.abort());
        try {
          const ok = await runDemo({
            live: flags.live ? { prompt: flags.prompt!, image: flags.image } : null,
            write: (text) => void process.stdout.write(text),
            isTerminal: process.stdout.isTTY,
            cliFile,
            environment: process.env,
            signal: interrupted.signal,
          });
          if (!ok) process.exitCode = 1;
        } catch (error) {
          if (!interrupted.signal.aborted) throw error;
          complain('Interrupted; everything was stopped.');
          process.exitCode = 130;
        }
      },
    );
}

async function billAccepted(yes: boolean): Promise<boolean> {
  const config = await readSettings();
  if (config.COMETAPI_KEY === '') {
    throw new InvalidInputError('A live run cannot start', [
      { path: 'COMETAPI_KEY', message: 'expected the API key of the provider, got nothing' },
    ]);
  }
  complain(`This submits one generation to ${config.COMETAPI_BASE_URL}. It will be billed to your account.`);
  if (yes) return true;
  if (!process.stdin.isTTY) {
    complain('Add --yes to go on without a question.');
    return false;
  }
  const question = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await question.question('Go on? [y/N] ');
  question.close();
  return /^y(es)?$/i.test(answer.trim());
}
