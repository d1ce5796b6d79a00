/** What apps, operators and the provider do at random moments of a money run, and how many bills each generation may have. */
import type { Reelhaul } from '../../src/reelhaul.js';
import { ReelhaulError } from '../../src/errors.js';
import { callbackUrl } from '../../src/provider/callback.js';
import type { Simulator } from '../../src/simulator/simulator.js';
import type { Dice } from '../fuzz/dice.js';

/** Answers that say that nothing was decided. */
const REFUSALS = ['state_conflict', 'rebill_not_allowed', 'not_found', 'invalid_input'];

export interface Order {
  readonly id: string;
  readonly tenant: string;
  /** Bills that were accepted beside the first. */
  allowed: number;
  /** Task ids that callbacks and operators made up for it. */
  readonly forged: string[];
}

export interface ActionDeps {
  readonly reelhaul: Reelhaul;
  readonly simulator: Simulator;
  readonly dice: Dice;
  readonly orders: ReadonlyMap<number, Order>;
  readonly publicUrl: string;
  readonly secret: string;
}

export interface Actions {
  /** One of them, at random. Never throws: Redis and the server may be away. */
  act(): Promise<void>;
  /** How often each was done. */
  readonly done: Map<string, number>;
}

/** States of which some can be decided about: half of the actions are about one of these. */
const DECIDABLE = ['unconfirmed', 'failed', 'expired', 'generating', 'submitting', 'canceled'] as const;

async function choose({ reelhaul, dice, orders }: ActionDeps): Promise<Order | undefined> {
  if (dice.chance(0.6)) {
    const state = dice.pick(DECIDABLE);
    const { generations } = await reelhaul.list({ state, limit: 20 });
    const id = generations.length > 0 ? dice.pick(generations).id : null;
    const found = [...orders.values()].find((order) => order.id === id);
    if (found) return found;
  }
  // The newest most of all: that is where something is under way.
  return orders.get(Math.max(0, orders.size - 1 - dice.size(orders.size - 1)));
}

type Act = (deps: ActionDeps, order: Order) => Promise<unknown>;

/** A second bill may follow, also when the answer is lost on the way. */
async function mayBill(order: Order, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ReelhaulError && REFUSALS.includes(error.code))) order.allowed += 1;
    throw error;
  }
  order.allowed += 1;
}

const tasksOf = (simulator: Simulator, id: string) =>
  simulator.ledger().submits.flatMap(({ generationId, taskIds }) => (generationId === id ? taskIds : []));

/** A callback with the right token, whatever it says. */
function call({ publicUrl, secret }: ActionDeps, order: Order, body: unknown): Promise<unknown> {
  const url = callbackUrl({ publicUrl, placeholderUrl: '', secret }, order.id);
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: text,
    signal: AbortSignal.timeout(5000),
  });
}

const ACTIONS: Record<string, { readonly weight: number; readonly act: Act }> = {
  cancel: { weight: 3, act: ({ reelhaul }, { id }) => reelhaul.cancel(id) },
  retry: { weight: 4, act: ({ reelhaul }, { id }) => reelhaul.retry(id) },
  'retry, allow rebill': {
    weight: 3,
    act: ({ reelhaul }, order) => mayBill(order, () => reelhaul.retry(order.id, { allowRebill: true })),
  },
  'decide resubmit': {
    weight: 4,
    act: ({ reelhaul }, order) => mayBill(order, () => reelhaul.decide(order.id, { resubmit: true })),
  },
  'decide give up': { weight: 2, act: ({ reelhaul }, { id }) => reelhaul.decide(id, { giveUp: true }) },
  'decide adopt': {
    weight: 4,
    async act({ reelhaul, simulator, dice }, { id }) {
      const own = tasksOf(simulator, id);
      if (own.length === 0) throw new Error('there is none');
      await reelhaul.decide(id, { adopt: dice.pick(own) });
    },
  },
  'adopt a made-up task': {
    weight: 1,
    async act({ reelhaul, dice }, order) {
      const taskId = `made-up-${dice.whole(1, 1e9)}`;
      order.forged.push(taskId);
      await reelhaul.decide(order.id, { adopt: taskId });
    },
  },
  'adopt the task of another': {
    weight: 1,
    async act(deps, { id }) {
      const { reelhaul, dice } = deps;
      const { generations } = await reelhaul.list({ state: 'generating', limit: 20 });
      const others = generations.filter((one) => one.id !== id && one.taskId !== null);
      if (others.length === 0) throw new Error('there is none');
      await reelhaul.decide(id, { adopt: dice.pick(others).taskId ?? '' });
      throw new Error('it was adopted'); // Counted by the audit: the task is that of another.
    },
  },
  callback: {
    weight: 8,
    async act(deps, order) {
      const own = tasksOf(deps.simulator, order.id);
      if (own.length === 0) return;
      const body = { task_id: deps.dice.pick(own), status: deps.dice.pick(['1', '2', '3']) };
      for (let i = 0; i < deps.dice.whole(1, 3); i++) await call(deps, order, body);
    },
  },
  'forged callback': {
    weight: 1,
    async act(deps, order) {
      const taskId = `forged-${deps.dice.whole(1, 1e9)}`;
      order.forged.push(taskId);
      await call(deps, order, { task_id: taskId, status: '3' });
    },
  },
  'foreign callback': {
    weight: 2,
    async act(deps, order) {
      const foreign = deps.simulator.ledger().submits.filter(({ generationId }) => generationId !== order.id);
      const [taskId] = foreign.length > 0 ? deps.dice.pick(foreign).taskIds : [];
      // One that is known: a task of which nobody knows whose it is belongs to the first that names it.
      const owner = foreign.find(({ taskIds }) => taskIds.includes(taskId ?? ''))?.generationId;
      if (taskId === undefined || !owner) return;
      const { taskId: followed } = await deps.reelhaul.get(owner);
      if (followed === taskId) await call(deps, order, { task_id: taskId, status: '3' });
    },
  },
  'garbage callback': {
    weight: 1,
    act: (deps, order) => call(deps, order, deps.dice.pick(['{"task_id": "', '[]', '{}', 'null'])),
  },
};

const names = Object.entries(ACTIONS).flatMap(([name, { weight }]) => Array<string>(weight).fill(name));

export function createActions(deps: ActionDeps): Actions {
  const done = new Map<string, number>();
  return {
    done,
    async act() {
      const { dice, orders } = deps;
      if (orders.size === 0) return;
      const name = dice.pick(names);
      try {
        const order = await choose(deps);
        if (!order) return;
        await ACTIONS[name]!.act(deps, order);
        done.set(name, (done.get(name) ?? 0) + 1);
      } catch {
        // Refused, or Redis or the server is away.
      }
    },
  };
}
