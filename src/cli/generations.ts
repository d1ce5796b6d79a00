/** What one asks of generations that are there, and does to them. */
import { Option, type Command } from 'commander';
import { isTerminal, STATES } from '../generation/states.js';
import type { ListQuery } from '../reelhaul.js';
import { wholeNumber } from './arguments.js';
import { askedToStop, withLibrary } from './session.js';
import {
  complain,
  print,
  show,
  showErased,
  showEvent,
  showList,
  showOutlook,
  waitAloud,
} from './terminal.js';

/** `get`, `list`, `wait-for`, `watch`, `cancel`, `retry`, `decide`, `erase`. */
export function addGenerations(program: Command): void {
  program
    .command('get <id>')
    .description('show one generation')
    .option('--answers', 'what the provider said that decided something')
    .option('--json', 'one line of JSON')
    .action((id: string, flags: { json?: boolean; answers?: boolean }) =>
      withLibrary(async (reelhaul) => {
        if (flags.answers) {
          for (const answer of await reelhaul.answers(id)) print(JSON.stringify(answer));
          return;
        }
        const generation = await reelhaul.get(id);
        show(generation, flags.json === true);
        if (flags.json !== true) showOutlook(await reelhaul.outlook(id));
      }),
    );

  program
    .command('list')
    .description('show generations, newest first')
    .addOption(new Option('--state <state>', '"unconfirmed": those that need a decision').choices(STATES))
    .option('--tenant <name>', 'only of this tenant')
    .option('--limit <n>', 'at most 500', wholeNumber, 50)
    .option('--cursor <cursor>', 'the cursor that the last page printed')
    .option('--json', 'one generation per line')
    .action((flags: ListQuery & { json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const { json, ...query } = flags;
        const { generations, cursor } = await reelhaul.list(query);
        if (json) for (const generation of generations) print(JSON.stringify(generation));
        else showList(generations);
        if (cursor !== null) complain(`more: --cursor ${cursor}`);
      }),
    );

  program
    .command('wait-for <id>')
    .description(
      'wait until a generation succeeded, failed, expired or was canceled; exit code 1 unless it succeeded',
    )
    .option('--timeout-ms <ms>', 'default: no limit', wholeNumber)
    .option('--json', 'one line of JSON')
    .action((id: string, { timeoutMs, json }: { timeoutMs?: number; json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const generation = await waitAloud(reelhaul, id, timeoutMs);
        show(generation, json === true);
        if (generation.state !== 'succeeded') process.exitCode = 1;
      }),
    );

  program
    .command('watch [id]')
    .description('print the events of one generation or of all, until Ctrl-C or the end of that one')
    .option('--tenant <name>', 'only of this tenant')
    .option('--cursor <cursor>', 'begin after the event of this cursor')
    .option('--json', 'one event per line')
    .action((id: string | undefined, flags: { tenant?: string; cursor?: string; json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const stop = new AbortController();
        void askedToStop().then(() => stop.abort());
        const { json, ...from } = flags;
        const filter = { ...from, ...(id === undefined ? {} : { generationId: id }), signal: stop.signal };
        const events = reelhaul.events(filter)[Symbol.asyncIterator]();
        // Listening begins before the look, so that no end falls between the two.
        let next = events.next();
        if (id !== undefined) {
          const generation = await reelhaul.get(id);
          if (!json) show(generation, false);
          if (isTerminal(generation.state)) stop.abort();
        }
        for (let event = await next; !event.done; event = await next) {
          showEvent(event.value, json === true);
          if (id !== undefined && event.value.to !== null && isTerminal(event.value.to)) stop.abort();
          next = events.next();
        }
      }),
    );

  program
    .command('cancel <id>')
    .description('stop a generation; its task may be billed all the same')
    .option('--json', 'one line of JSON')
    .action((id: string, { json }: { json?: boolean }) =>
      withLibrary(async (reelhaul) => {
        const { generation, mayBeBilled } = await reelhaul.cancel(id);
        show(generation, json === true);
        if (mayBeBilled) complain('Its task may be billed all the same: the provider has no cancel.');
      }),
    );

  program
    .command('retry <id>')
    .description('restart at the stage that failed; a retry of poll or archive never bills')
    .option('--allow-rebill', 'accept that it may be billed a second time')
    .option('--json', 'one line of JSON')
    .action((id: string, { allowRebill, json }: { allowRebill?: boolean; json?: boolean }) =>
      withLibrary(async (reelhaul) =>
        show(await reelhaul.retry(id, { allowRebill: allowRebill === true }), json === true),
      ),
    );

  program
    .command('decide <id>')
    .description('settle an unconfirmed generation')
    .option('--adopt <taskId>', 'this is its task: poll it')
    .option('--resubmit', 'submit again; it may be billed twice')
    .option('--give-up', 'fail it; a late callback still revives it')
    .option('--json', 'one line of JSON')
    .action(
      (
        id: string,
        flags: { adopt?: string; resubmit?: boolean; giveUp?: boolean; json?: boolean },
        command: Command,
      ) => {
        const chosen = [flags.adopt !== undefined, flags.resubmit === true, flags.giveUp === true].filter(
          Boolean,
        );
        if (chosen.length !== 1)
          command.error('error: expected one of --adopt <taskId>, --resubmit, --give-up', { exitCode: 2 });
        const decision =
          flags.adopt !== undefined
            ? { adopt: flags.adopt }
            : flags.resubmit
              ? { resubmit: true as const }
              : { giveUp: true as const };
        return withLibrary(async (reelhaul) =>
          show(await reelhaul.decide(id, decision), flags.json === true),
        );
      },
    );

  addErase(program);
}

function addErase(program: Command): void {
  program
    .command('erase [id]')
    .description('erase a generation, or all of a tenant, with files and manifest; it cannot be undone')
    .option('--tenant <name>', 'all generations of this tenant, instead of one id')
    .option('--even-if-billed', 'also what may still be billed: a later bill is not noticed')
    .option('--json', 'one line of JSON')
    .action(
      (
        id: string | undefined,
        { tenant, evenIfBilled = false, json = false }: EraseFlags,
        command: Command,
      ) => {
        if ((id === undefined) === (tenant === undefined))
          command.error('error: expected either an id or --tenant <name>', { exitCode: 2 });
        return withLibrary(async (reelhaul) => {
          if (tenant !== undefined) {
            const result = await reelhaul.eraseTenant(tenant, { evenIfBilled });
            if (json) print(JSON.stringify(result));
            else print(`${result.erased} erased, ${result.kept} kept`);
            if (result.kept === 0) return;
            complain('Those that are kept may still be billed. Cancel them first, or add --even-if-billed.');
            process.exitCode = 1;
          } else if (id !== undefined) showErased(await reelhaul.erase(id, { evenIfBilled }), json);
        });
      },
    );
}

interface EraseFlags {
  tenant?: string;
  evenIfBilled?: boolean;
  json?: boolean;
}
