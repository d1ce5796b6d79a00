/**
 * `npm run bench:shards`: the same work over 1 to 4 shards of a Redis Cluster of three masters, all real processes on one
 * machine, in turns. Where masters share their cores with the workers it cannot become faster by shards; what it shows is
 * how evenly the masters share the load, and how much the busiest of them, which is what fills up first, is relieved.
 * `--write` puts the table into docs/redis.md.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { readConfig } from '../../src/config/config.js';
import type { LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { STATES } from '../../src/generation/states.js';
import { createReelhaul } from '../../src/reelhaul.js';
import type { Reelhaul } from '../../src/reelhaul.js';
import { launchCluster, type TestCluster } from '../support/cluster.js';
import { describeMachine } from './machine.js';
import { cpuSeconds, endOnSignals, startProgram } from './processes.js';
import { countRedis } from './redis-meter.js';
import { tableOf } from './report.js';
import { COMPACT, IMAGE, KEY } from './rig.js';
import { prompts, until, type Figures } from './scenario.js';
import { shown } from './figures.js';
import { startSimulatorProcess, type SimulatorProcess } from './simulator/process.js';

const { values: flags } = parseArgs({
  options: {
    generations: { type: 'string', default: '800' },
    rounds: { type: 'string', default: '3' },
    /** Worker processes. */
    workers: { type: 'string', default: '2' },
    shards: { type: 'string', default: '1,2,3,4' },
    write: { type: 'boolean', default: false },
  },
});
const generations = Number(flags.generations);
const rounds = Number(flags.rounds);
const employed = Number(flags.workers);

const cliFile = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const WARM_UP = 300;
const DONE_SOON = () => 'duration=500ms';
/** Long enough to see what workers without work cost. */
const IDLE_MS = 4000;

interface Ground {
  readonly cluster: TestCluster;
  readonly masters: readonly (LaunchedRedis & { readonly client: Redis })[];
  readonly simulator: SimulatorProcess;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

async function enqueue(reelhaul: Reelhaul, orders: readonly string[]): Promise<void> {
  const results = await reelhaul.enqueueMany(orders.map((prompt) => ({ request: { prompt, image: IMAGE } })));
  const refused = results.find(({ ok }) => !ok);
  if (refused?.ok === false) throw refused.error;
}

async function haveSucceeded(reelhaul: Reelhaul, wanted: number): Promise<boolean> {
  const { succeeded = 0, failed = 0, expired = 0, canceled = 0 } = await reelhaul.count(STATES);
  if (failed + expired + canceled > 0) throw new Error('not all succeeded');
  return succeeded >= wanted;
}

async function measure({ masters, cluster, simulator }: Ground, shards: number): Promise<Figures> {
  for (const { client } of masters) await client.flushall();
  const archive = await mkdtemp(join(tmpdir(), 'reelhaul-bench-'));
  const environment = {
    COMETAPI_KEY: KEY,
    COMETAPI_BASE_URL: simulator.url,
    REDIS_CLUSTER_NODES: cluster.nodes,
    REDIS_SHARDS: String(shards),
    STORAGE_URL: `file:${archive}`,
    ARCHIVE_ALLOW_HOSTS: '127.0.0.1',
    POLL_FIRST_DELAY_MS: '1000',
    LOG_LEVEL: 'warn',
  };
  const clientsOf = async ({ client }: { readonly client: Redis }) =>
    Number(/^connected_clients:(\d+)/m.exec(await client.info('clients'))?.[1] ?? NaN);
  const connections = async () => sum(await Promise.all(masters.map(clientsOf)));

  const reelhaul = await createReelhaul({ config: readConfig(environment) });
  const without = await connections();
  const workers = Array.from({ length: employed }, () => startProgram(cliFile, ['worker'], environment));
  const take = async () => {
    const { user, system } = process.cpuUsage();
    return {
      seconds: performance.now() / 1000,
      producer: (user + system) / 1e6,
      workers: sum(await Promise.all(workers.map(({ pid }) => cpuSeconds(pid)))),
      simulator: await cpuSeconds(simulator.program.pid),
      masters: await Promise.all(masters.map(({ client }) => countRedis(client))),
    };
  };
  const stretch = async (work: () => Promise<unknown>) => {
    const before = await take();
    await work();
    const after = await take();
    return {
      seconds: after.seconds - before.seconds,
      producer: after.producer - before.producer,
      workers: after.workers - before.workers,
      simulator: after.simulator - before.simulator,
      masters: after.masters
        .map(({ cpuSeconds: cpu }, i) => cpu - before.masters[i]!.cpuSeconds)
        .toSorted((a, b) => b - a),
      commands: sum(after.masters.map(({ commands }, i) => commands - before.masters[i]!.commands)),
    };
  };
  try {
    await enqueue(reelhaul, prompts('warm', WARM_UP, DONE_SOON));
    await until('the warm-up', () => haveSucceeded(reelhaul, WARM_UP));
    const busy = await stretch(async () => {
      await enqueue(reelhaul, prompts('counted', generations, DONE_SOON));
      await until('the end', () => haveSucceeded(reelhaul, WARM_UP + generations));
    });
    const opened = (await connections()) - without;
    const idle = await stretch(() => wait(IDLE_MS));
    const perThousand = (cpu: number) => (1000 * cpu) / generations;
    const [first = NaN, second = NaN, third = NaN] = busy.masters;
    const redis = sum(busy.masters);
    const percent = (cpu: number) => (100 * cpu) / idle.seconds;
    return {
      rate: generations / busy.seconds,
      'CPU-s per 1,000: busiest master': perThousand(first),
      'second master': perThousand(second),
      'third master': perThousand(third),
      'all masters': perThousand(redis),
      commands: busy.commands / generations,
      workers: perThousand(busy.workers),
      'producer and simulator': perThousand(busy.producer + busy.simulator),
      'share of the busiest master, %': (100 * first) / redis,
      'generations/s that would fill its core (computed)': generations / first,
      'connections of a worker process': opened / employed,
      'idle: a worker process, % of a core': percent(idle.workers) / employed,
      'idle: all masters, % of a core': percent(sum(idle.masters)),
    };
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await reelhaul.close();
    await rm(archive, { recursive: true, force: true });
  }
}

endOnSignals();
const counts = flags.shards.split(',').map(Number);
const cluster = await launchCluster([
  ...['--appendfsync', 'everysec', ...COMPACT],
  // A machine that is busy all over is late with its heartbeats.
  ...['--cluster-node-timeout', '15000'],
]);
const masters = cluster.masters.map((server) => ({ ...server, client: new Redis(server.url) }));
const simulator = await startSimulatorProcess({});
const load = loadavg()[0]!.toFixed(1);
const machine = await describeMachine(masters[0]!.client);

const measured = new Map<number, Figures[]>();
for (let round = 1; round <= rounds; round++) {
  for (const shards of counts) {
    process.stderr.write(`round ${round} of ${rounds}: ${shards} shards\n`);
    const figures = await measure({ cluster, masters, simulator }, shards);
    const told = Object.entries(figures).map(([name, value]) => `${name} ${shown(value)}`);
    process.stderr.write(`  ${told.join(' · ')}\n`);
    measured.set(shards, [...(measured.get(shards) ?? []), figures]);
  }
}
await simulator.program.stop();
for (const { client } of masters) client.disconnect();

const table = tableOf({
  scenario: 'shards',
  about: `${generations.toLocaleString('en')} generations done at the first poll, ${employed} worker processes, 3 masters.`,
  series: counts.map((shards) => ({
    name: `${shards} shard${shards > 1 ? 's' : ''}`,
    rounds: measured.get(shards) ?? [],
  })),
});
const report = `${machine}; load average before: ${load}. ${rounds} rounds in turns: medians, and in parentheses from where to where they went.\n\n${table}`;
process.stdout.write(`${report}\n`);
if (flags.write) {
  const file = fileURLToPath(new URL('../../../docs/redis.md', import.meta.url));
  const before = await readFile(file, 'utf8');
  const marked = /(<!-- figures of npm run bench:shards -->\n)[\s\S]*?(<!-- end of those -->)/;
  if (!marked.test(before)) throw new Error('docs/redis.md has no place for the figures');
  await writeFile(
    file,
    before.replace(marked, (_, begin: string, end: string) => `${begin}\n${report}\n${end}`),
  );
}
await cluster.stop();
