/** A Redis Cluster of one's own: three masters, real processes on free loopback ports, quick to fail over. */
import { freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { ask, tell } from './sentinel.js';
import { until } from './until.js';

const SLOTS = 16_384;
const MASTERS = 3;
/** A master that is silent for so long is replaced by its replica. */
const NODE_TIMEOUT_MS = 1000;

const MOVE_ALL = `
local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], 1000000)
redis.call('MIGRATE', '127.0.0.1', ARGV[2], '', 0, 30000, 'KEYS', unpack(keys))
`;

interface Node {
  readonly server: LaunchedRedis;
  readonly busPort: number;
}

export interface TestCluster {
  /** `host:port` entries, as REDIS_CLUSTER_NODES takes them. */
  readonly nodes: string;
  readonly masters: readonly LaunchedRedis[];
  /** The master that serves this key now. */
  ownerOf(key: string): Promise<LaunchedRedis>;
  /** Starts a replica of that master and waits until it has caught up and all know of it. */
  addReplica(master: LaunchedRedis): Promise<LaunchedRedis>;
  /** Moves the slot of this key to another master, all its keys in one step, while it is in use. */
  moveSlot(key: string, to: LaunchedRedis): Promise<void>;
  stop(): Promise<void>;
}

export async function launchCluster(extraArguments: readonly string[] = []): Promise<TestCluster> {
  const nodes: Node[] = [];

  async function launchNode(): Promise<Node> {
    const busPort = await freePort();
    const server = await launchRedis([
      ...['--cluster-enabled', 'yes', '--cluster-port', String(busPort)],
      ...['--cluster-node-timeout', String(NODE_TIMEOUT_MS), '--repl-diskless-sync-delay', '0'],
      ...extraArguments,
    ]);
    const node = { server, busPort };
    nodes.push(node);
    return node;
  }

  const idOf = (server: LaunchedRedis) =>
    tell(server.port, (redis) => redis.call('CLUSTER', 'MYID') as Promise<string>);
  const alive = async (): Promise<LaunchedRedis[]> => {
    const answers = await Promise.all(nodes.map(({ server }) => ask(server.port, (redis) => redis.ping())));
    return nodes.flatMap(({ server }, i) => (answers[i] === 'PONG' ? [server] : []));
  };
  /** All that are alive know all there ever were, and every slot is served. */
  const settled = () =>
    until(async () => {
      const infos = await Promise.all(
        (await alive()).map(({ port }) =>
          ask(port, (redis) => redis.call('CLUSTER', 'INFO') as Promise<string>),
        ),
      );
      return infos.every(
        (info) =>
          info?.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${nodes.length}\r`),
      );
    }, 'the nodes of the Cluster to know each other');
  const meet = async ({ server, busPort }: Node) => {
    const [known] = await alive();
    await tell(known!.port, (redis) =>
      redis.call('CLUSTER', 'MEET', '127.0.0.1', String(server.port), String(busPort)),
    );
  };

  await Promise.all(Array.from({ length: MASTERS }, launchNode));
  const masters = nodes.map(({ server }) => server);
  for (const [i, { server }] of nodes.entries()) {
    const from = Math.floor((i * SLOTS) / MASTERS);
    const until = Math.floor(((i + 1) * SLOTS) / MASTERS) - 1;
    await tell(server.port, (redis) => redis.call('CLUSTER', 'ADDSLOTSRANGE', String(from), String(until)));
    await tell(server.port, (redis) => redis.call('CLUSTER', 'SET-CONFIG-EPOCH', String(i + 1)));
  }
  for (const node of nodes.slice(1)) await meet(node);
  await settled();

  async function slotAndOwner(key: string): Promise<{ slot: number; owner: LaunchedRedis }> {
    const [server] = await alive();
    const { slot, ranges } = await tell(server!.port, async (redis) => ({
      slot: (await redis.call('CLUSTER', 'KEYSLOT', key)) as number,
      ranges: (await redis.call('CLUSTER', 'SLOTS')) as [number, number, [string, number]][],
    }));
    const [, , [, port] = ['', 0]] = ranges.find(([from, to]) => from <= slot && slot <= to) ?? [];
    return { slot, owner: nodes.find((node) => node.server.port === port)!.server };
  }

  return {
    nodes: masters.map(({ port }) => `127.0.0.1:${port}`).join(','),
    masters,
    ownerOf: async (key) => (await slotAndOwner(key)).owner,

    async addReplica(master) {
      const node = await launchNode();
      await meet(node);
      await settled();
      const id = await idOf(master);
      await tell(node.server.port, (redis) => redis.call('CLUSTER', 'REPLICATE', id));
      await until(
        () =>
          ask(node.server.port, async (redis) =>
            (await redis.info('replication')).includes('link_status:up'),
          ),
        'the replica to follow its master',
      );
      const listed = (port: number) =>
        ask(port, async (redis) => ((await redis.call('CLUSTER', 'REPLICAS', id)) as string[]).length > 0);
      for (const { port } of await alive()) await until(() => listed(port), 'the nodes to know the replica');
      return node.server;
    },

    async moveSlot(key, to) {
      const { slot, owner } = await slotAndOwner(key);
      const [from, target] = await Promise.all([idOf(owner), idOf(to)]);
      const set = (server: LaunchedRedis, ...how: string[]) =>
        tell(server.port, (redis) => redis.call('CLUSTER', 'SETSLOT', String(slot), ...how));
      await set(to, 'IMPORTING', from);
      await set(owner, 'MIGRATING', target);
      await tell(owner.port, async (redis) => {
        // One script, so that no other command comes between the two.
        await redis.eval(MOVE_ALL, 0, String(slot), String(to.port));
        return true;
      });
      for (const server of [to, owner, ...(await alive())]) await set(server, 'NODE', target);
    },

    async stop() {
      await Promise.all(nodes.map(({ server }) => server.kill()));
      await Promise.all(nodes.map(({ server }) => server.stop()));
    },
  };
}
