/**
 * `npm run bench:callbacks`: what callbacks are worth: a real Redis, the simulator, a worker process and a callback
 * server, tasks around 8 s. Prints polls per generation and the delay until an end is noticed, when all callbacks
 * arrive, when one in ten is lost, when none ever arrives, and without any. `--write` puts the table into docs/polling.md.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { readConfig } from '../../src/config/config.js';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { quantile, shown } from './figures.js';
import { describeMachine } from './machine.js';
import { createDice, logNormal } from './polling/distributions.js';
import { endOnSignals } from './processes.js';
import { createRig, IMAGE } from './rig.js';
import { detectionDelays, type TaskCourse } from './simulator/wire.js';

const { values: flags } = parseArgs({
  options: {
    generations: { type: 'string', default: '600' },
    /** Enqueued per second. */
    rate: { type: 'string', default: '15' },
    rounds: { type: 'string', default: '3' },
    /** Cases whose name begins so. */
    only: { type: 'string', default: '' },
    write: { type: 'boolean', default: false },
  },
});
const generations = Number(flags.generations);
const MEDIAN_MS = 8000;
const SIGMA = 0.4;
/** So many of the same durations before it is counted, so that the schedule knows what it would know in a day. */
const WARM_UP = 100;
const GIVE_UP_MS = 900_000;

interface Case {
  readonly name: string;
  readonly callbacks: boolean;
  /** Share of the callbacks that are lost, of the tasks that count. */
  readonly lost: number;
}
const CASES: readonly Case[] = [
  { name: 'all callbacks arrive', callbacks: true, lost: 0 },
  { name: '10 % are lost', callbacks: true, lost: 0.1 },
  { name: 'they stop arriving', callbacks: true, lost: 1 },
  { name: 'no `PUBLIC_URL`', callbacks: false, lost: 0 },
];

async function run({ callbacks, lost }: Case, seed: number): Promise<readonly TaskCourse[]> {
  const rig = await createRig({ seed });
  const dice = createDice(seed);
  const port = await freePort();
  const heard = callbacks
    ? {
        PUBLIC_URL: `http://127.0.0.1:${port}`,
        PORT: String(port),
        CALLBACK_SECRET: 'a secret of the benchmark',
      }
    : {};
  const environment = { ...rig.environment, ...heard };
  const reelhaul = await createReelhaul({ config: readConfig(environment) });
  try {
    rig.reelhaul(['worker'], heard);
    if (callbacks) rig.reelhaul(['serve'], heard);
    const enqueue = async (name: string, lossRate: number) => {
      const duration = Math.round(logNormal(dice, MEDIAN_MS, SIGMA));
      const callback = dice() < lossRate ? ', callback=lost' : '';
      await reelhaul.enqueue({ prompt: `${name} [sim: duration=${duration}ms${callback}]`, image: IMAGE });
      await wait(1000 / Number(flags.rate));
    };
    const allOver = async () => {
      const giveUpAt = Date.now() + GIVE_UP_MS;
      for (;;) {
        const { tasks, over } = await rig.simulator.ask('totals', 'totals');
        if (tasks > 0 && over === tasks) return;
        if (Date.now() > giveUpAt) throw new Error(`only ${over} of ${tasks} ends were noticed in time`);
        await wait(500);
      }
    };
    for (let i = 0; i < WARM_UP; i++) await enqueue(`warm ${i}`, 0);
    await allOver();
    for (let i = 0; i < generations; i++) await enqueue(`counted ${i}`, lost);
    await allOver();
    const { tasks } = await rig.simulator.ask('tasks', 'tasks');
    return tasks.filter(({ prompt }) => prompt.startsWith('counted'));
  } finally {
    await reelhaul.close();
    await rig.close();
  }
}

function rowOf(name: string, tasks: readonly TaskCourse[]): string {
  const delays = detectionDelays(tasks);
  const polls = tasks.reduce((sum, task) => sum + task.polls, 0) / tasks.length;
  const cells = [0.5, 0.95, 0.99].map((share) => shown(quantile(delays, share)));
  return `| ${[name, polls.toFixed(2), ...cells].join(' | ')} |`;
}

endOnSignals();
const rounds = Number(flags.rounds);
const lines = [
  '| Callbacks | Polls per generation | Delay p50, ms | p95, ms | p99, ms |',
  '|---|---|---|---|---|',
];
for (const one of CASES.filter(({ name }) => name.startsWith(flags.only))) {
  const all: TaskCourse[] = [];
  for (let round = 1; round <= rounds; round++) {
    process.stderr.write(`${one.name}, round ${round} of ${rounds}\n`);
    const tasks = await run(one, round);
    all.push(...tasks);
    process.stderr.write(`${rowOf('', tasks)}\n`);
    if (one.lost === 1) {
      const after = tasks.toSorted((a, b) => a.createdAt - b.createdAt).slice(tasks.length / 2);
      process.stderr.write(`${rowOf('second half', after)}\n`);
    }
  }
  lines.push(rowOf(one.name, all));
}

const rig = await createRig();
const machine = await describeMachine(rig.client);
await rig.close();
const report = `${rounds} rounds of ${generations} generations, ${flags.rate} a second, log-normal, median ${MEDIAN_MS / 1000} s, sigma ${SIGMA}, default settings, one worker process and one server; ${WARM_UP} before them taught the schedule. ${machine}.\n\n${lines.join('\n')}\n`;
process.stdout.write(report);

if (flags.write) {
  const file = fileURLToPath(new URL('../../../docs/polling.md', import.meta.url));
  const before = await readFile(file, 'utf8');
  const marked = /(<!-- figures of npm run bench:callbacks -->\n)[\s\S]*?(<!-- end of those -->)/;
  if (!marked.test(before)) throw new Error('docs/polling.md has no place for the figures');
  await writeFile(
    file,
    before.replace(marked, (_, begin: string, end: string) => `${begin}\n${report}\n${end}`),
  );
}
