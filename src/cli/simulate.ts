/** `simulate`: the simulator of the provider, as a process. */
import type { Command } from 'commander';
import { wholeNumber } from './arguments.js';
import { askedToStop, listenOn } from './session.js';
import { print } from './terminal.js';

interface SimulateFlags {
  host: string;
  port: number;
  seed: number;
  durationMs?: number;
  rates?: string;
  script?: string;
  callbackHosts?: string;
}

/** What a worker, and an app beside it, have to be started with. */
function exportsFor(url: string): string {
  return [
    '',
    'For the worker:',
    `  export COMETAPI_BASE_URL=${url}`,
    '  export COMETAPI_KEY=simulated-key',
    '  export ARCHIVE_ALLOW_HOSTS=127.0.0.1,localhost',
    '  export INPUT_URL_CHECK=false',
    'For the worker and the app, the same in both (these are the defaults):',
    '  export REDIS_URL=redis://127.0.0.1:6379',
    "  export REDIS_PREFIX='{reelhaul}'",
    '',
  ].join('\n');
}

export function addSimulate(program: Command): void {
  program
    .command('simulate')
    .description('run the provider simulator: the same answers as the real API, no bills')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'default: any free one', wholeNumber, 0)
    .option('--seed <n>', 'the same seed gives the same faults', wholeNumber, 1)
    .option('--duration-ms <ms>', 'how long a task takes', wholeNumber)
    .option('--rates <list>', 'random faults, such as submit-504-after=0.05,poll-500=0.1')
    .option('--script <text>', 'directives for every generation, as in a prompt')
    .option(
      '--callback-hosts <names>',
      'hosts that it may call back, beside this machine, separated by commas; * for all',
    )
    .action(async (flags: SimulateFlags) => {
      const stopped = askedToStop();
      const { startSimulator } = await import('../simulator/simulator.js');
      const { parseRates } = await import('../simulator/faults.js');
      const starting = startSimulator({
        host: flags.host,
        port: flags.port,
        seed: flags.seed,
        ...(flags.script === undefined ? {} : { script: flags.script }),
        ...(flags.callbackHosts === undefined ? {} : { callbackHosts: flags.callbackHosts.split(',') }),
        ...(flags.durationMs === undefined ? {} : { taskDurationMs: flags.durationMs }),
        ...(flags.rates === undefined ? {} : { rates: parseRates(flags.rates) }),
      });
      const simulator = await listenOn('--port', starting);
      print(`The simulator listens at ${simulator.url}; its ledger is at ${simulator.url}/ledger`);
      print(exportsFor(simulator.url));
      await stopped;
      await simulator.close();
    });
}
