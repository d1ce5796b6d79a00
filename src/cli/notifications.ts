/** What apps were told, and what they could not be told. */
import type { Command } from 'commander';
import { wholeNumber } from './arguments.js';
import { ConfigError } from '../errors.js';
import { notifySecrets } from '../outbound/notify-secrets.js';
import { readSettings, withLibrary } from './session.js';
import { complain, print, showNotifications } from './terminal.js';

/** `notifications`, `retry-notification`, `notify-secret`. */
export function addNotifications(program: Command): void {
  program
    .command('notifications [id]')
    .description(
      'notifications of a generation that are not delivered; without an id, all that were given up',
    )
    .option('--limit <n>', 'without an id: generations, at most 500', wholeNumber, 50)
    .option('--cursor <cursor>', 'without an id: the cursor that the last page printed')
    .option('--json', 'one notification per line')
    .action((id: string | undefined, flags: { limit: number; cursor?: string; json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const { json, ...query } = flags;
        const page =
          id === undefined
            ? await reelhaul.deadNotifications(query)
            : { notifications: await reelhaul.notifications(id), cursor: null };
        if (json) for (const one of page.notifications) print(JSON.stringify(one));
        else showNotifications(page.notifications);
        if (page.cursor !== null) complain(`more: --cursor ${page.cursor}`);
      }),
    );

  program
    .command('retry-notification <id>')
    .description('send the notifications of a generation that were given up again')
    .action((id: string) =>
      withLibrary(async (reelhaul) => {
        const again = await reelhaul.retryNotification(id);
        if (again > 0) return print(`${again} will be sent again`);
        complain(`Generation ${id} has no notification that was given up.`);
        process.exitCode = 1;
      }),
    );

  program
    .command('notify-secret <tenant>')
    .description('the secret that verifies the notifications of a tenant, newest first')
    .action(async (tenant: string) => {
      const { NOTIFY_SECRET } = await readSettings();
      if (NOTIFY_SECRET.length === 0)
        throw new ConfigError([
          { path: 'NOTIFY_SECRET', message: 'expected the secret of the workers, got nothing' },
        ]);
      for (const secret of notifySecrets(NOTIFY_SECRET, tenant)) print(secret);
    });
}
