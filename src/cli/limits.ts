/** Caps, rates, outages and budgets, as they stand. */
import type { Command } from 'commander';
import { describeLimits, describeSpend } from './describe-limits.js';
import { withLibrary } from './session.js';
import { print } from './terminal.js';

/** `limits`, `resume`, `spend`. */
export function addLimits(program: Command): void {
  program
    .command('limits')
    .description('caps and rates with their use, and what holds calls to the provider')
    .option('--json', 'one line of JSON')
    .action(({ json }: { json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const limits = await reelhaul.limits();
        print(json ? JSON.stringify(limits) : describeLimits(limits));
      }),
    );

  program
    .command('resume')
    .description('say that key and provider work again: nothing waits for a probe, a 429 or the next budget')
    .action(() =>
      withLibrary(async (reelhaul) => {
        await reelhaul.resume();
        print(describeLimits(await reelhaul.limits()));
      }),
    );

  program
    .command('spend')
    .description('what was spent on a day, by tenant')
    .option('--day <YYYY-MM-DD>', 'UTC; default: today')
    .option('--tenant <name>', 'only of this tenant')
    .option('--json', 'one line of JSON')
    .action(({ json, ...query }: { day?: string; tenant?: string; json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const spend = await reelhaul.spend(query);
        print(json ? JSON.stringify(spend) : describeSpend(spend));
      }),
    );
}
