/**
 * Several shards as one hub: what is asked of one generation goes to its shard, what is asked of all is asked of all and
 * put together. Nobody above has to know how many there are; the stages run on each shard by itself (`shards`).
 *
 * Caps and budgets are shared out among the shards (`shareOfConfig`), each shard keeps to its part in its own scripts, and
 * so the whole is never passed. The call budget of the key is one for all, and what is learnt of durations as well.
 */
import type { Config } from '../config/config.js';
import type { Following } from '../polling/poll-state.js';
import type { Outbox } from '../store/outbox.js';
import { createKeys } from '../store/keys.js';
import { shardOf, shardOfKey, shardPrefix, shareOfAmount, shareOfCount } from '../generation/shard.js';
import type { Store } from '../store/store.js';
import { RedisUnusableError } from '../errors.js';
import type { Breaker, BreakerState } from '../limits/breaker.js';
import type { Dispatch } from '../limits/dispatch.js';
import type { InForce, Line, LineCounts, TenantLimits } from '../limits/line.js';
import { STAGES } from '../generation/states.js';
import type { Backlog, Queues } from '../queue/queues.js';
import { refusalOf, type RedisConnection } from '../redis/connect.js';
import type { Standing } from '../limits/standing.js';
import type { RunName } from '../generation/work.js';

// ---- how many there are ----

type Spread = Pick<Config, 'REDIS_PREFIX' | 'REDIS_SHARDS'>;

/**
 * SPREAD. Over how many shards the generations of this prefix are spread: as whoever came first said.
 * KEYS 1 where that is written · 2 events of a single shard · ARGV 1 what this process says
 * Older versions wrote nothing, and had one shard: their events tell. In one step, so that of processes that start
 * together with different numbers only one gets its way.
 */
const SPREAD = `
local said = redis.call('GET', KEYS[1])
if said then return said end
if redis.call('EXISTS', KEYS[2]) == 1 then return '1' end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
`;

function wrongShards({ REDIS_PREFIX: prefix, REDIS_SHARDS: got }: Spread, said: string): string {
  return (
    `Expected REDIS_SHARDS=${said}, since the generations under ${prefix} are spread over so many; got ${got}. ` +
    'To change it, start under another REDIS_PREFIX and let the old one run empty (docs/redis.md).'
  );
}

/**
 * Sees to it that the generations in this Redis are spread as `REDIS_SHARDS` says, in every process. With another number
 * they would be looked for in the wrong places and seem to be gone, and an idempotency key would be bought again.
 * @throws RedisUnusableError
 */
export async function checkShards(redis: RedisConnection, spread: Spread): Promise<void> {
  const { shards, events } = createKeys(spread.REDIS_PREFIX);
  const said = String(
    await redis.eval(SPREAD, 2, shards, events, spread.REDIS_SHARDS).catch((error: unknown) => {
      if (!(error instanceof Error) || refusalOf(error) === null) throw error;
      // The first under this prefix writes, and this server takes no writes now.
      const message = `This Redis cannot be used: expected it to take writes, got: ${error.message}`;
      throw new RedisUnusableError(message, { cause: error });
    }),
  );
  if (Number(said) !== spread.REDIS_SHARDS) throw new RedisUnusableError(wrongShards(spread, said));
}

/** The same question, only asked: nothing is written. @returns what is wrong, or null. */
export async function shardsProblem(redis: RedisConnection, spread: Spread): Promise<string | null> {
  const { shards, events } = createKeys(spread.REDIS_PREFIX);
  const said = (await redis.get(shards)) ?? ((await redis.exists(events)) === 1 ? '1' : null);
  return said === null || Number(said) === spread.REDIS_SHARDS ? null : wrongShards(spread, said);
}

// ---- what each may use of the whole ----

function shareOfTenants(
  tenants: Readonly<Record<string, TenantLimits>>,
  shard: number,
  shards: number,
): Record<string, TenantLimits> {
  return Object.fromEntries(
    Object.entries(tenants).map(([tenant, { weight, maxInFlight, budgetPerDay }]) => [
      tenant,
      {
        ...(weight === undefined ? {} : { weight }),
        ...(maxInFlight === undefined ? {} : { maxInFlight: shareOfCount(maxInFlight, shard, shards) }),
        ...(budgetPerDay === undefined ? {} : { budgetPerDay: shareOfAmount(budgetPerDay, shards) }),
      },
    ]),
  );
}

/** The configuration of one shard: its own prefix, and its part of caps, budgets and what a process does at once. */
export function shareOfConfig(config: Config, shard: number): Config {
  const shards = config.REDIS_SHARDS;
  const atOnce = (total: number) => Math.max(1, shareOfCount(total, shard, shards));
  const count = (total: number | null) => (total === null ? null : shareOfCount(total, shard, shards));
  const amount = (total: number | null) => (total === null ? null : shareOfAmount(total, shards));
  return Object.freeze({
    ...config,
    REDIS_PREFIX: shardPrefix(config.REDIS_PREFIX, shard, shards),
    SUBMIT_CONCURRENCY: atOnce(config.SUBMIT_CONCURRENCY),
    POLL_CONCURRENCY: atOnce(config.POLL_CONCURRENCY),
    ARCHIVE_CONCURRENCY: atOnce(config.ARCHIVE_CONCURRENCY),
    NOTIFY_CONCURRENCY: atOnce(config.NOTIFY_CONCURRENCY),
    MAX_IN_FLIGHT: count(config.MAX_IN_FLIGHT),
    MAX_IN_FLIGHT_PER_TENANT: count(config.MAX_IN_FLIGHT_PER_TENANT),
    BUDGET_PER_DAY: amount(config.BUDGET_PER_DAY),
    BUDGET_PER_TENANT_PER_DAY: amount(config.BUDGET_PER_TENANT_PER_DAY),
    TENANTS: shareOfTenants(config.TENANTS, shard, shards),
  });
}

function shareOfLimits(limits: InForce, shard: number, shards: number): InForce {
  const count = (total: number | null) => (total === null ? null : shareOfCount(total, shard, shards));
  const amount = (total: number | null) => (total === null ? null : shareOfAmount(total, shards));
  return {
    ...limits,
    maxInFlight: count(limits.maxInFlight),
    tenantMaxInFlight: count(limits.tenantMaxInFlight),
    budgetPerDay: amount(limits.budgetPerDay),
    tenantBudgetPerDay: amount(limits.tenantBudgetPerDay),
    tenants: shareOfTenants(limits.tenants, shard, shards),
  };
}

const added = (values: readonly (number | null)[]): number | null =>
  values.includes(null) ? null : values.reduce<number>((sum, value) => sum + (value ?? 0), 0);

/** As it was before it was shared out: each part lacks less than a millionth. */
const rounded = (amount: number): number => Math.round(amount * 1e4) / 1e4;

/** The parts put together again. Null while a shard has none yet. */
function joinLimits(parts: readonly (InForce | null)[]): InForce | null {
  const known = parts.filter((part) => part !== null);
  const [first] = known;
  if (!first || known.length < parts.length) return null;
  const whole = (of: (part: InForce) => number | null) => added(known.map(of));
  const money = (of: (part: InForce) => number | null) => {
    const sum = whole(of);
    return sum === null ? null : rounded(sum);
  };
  const tenants = Object.fromEntries(
    Object.entries(first.tenants).map(([tenant, own]) => {
      const of = (value: 'maxInFlight' | 'budgetPerDay') =>
        added(known.map((part) => part.tenants[tenant]?.[value] ?? null));
      const [maxInFlight, budgetPerDay] = [of('maxInFlight'), of('budgetPerDay')];
      return [
        tenant,
        {
          ...(own.weight === undefined ? {} : { weight: own.weight }),
          ...(maxInFlight === null ? {} : { maxInFlight }),
          ...(budgetPerDay === null ? {} : { budgetPerDay: rounded(budgetPerDay) }),
        },
      ];
    }),
  );
  return {
    ...first,
    maxInFlight: whole((part) => part.maxInFlight),
    tenantMaxInFlight: whole((part) => part.tenantMaxInFlight),
    budgetPerDay: money((part) => part.budgetPerDay),
    tenantBudgetPerDay: money((part) => part.tenantBudgetPerDay),
    tenants,
  };
}

// ---- what is one for whoever asks ----

/** What a shard is made of, as far as it is put together here. */
export interface Shard {
  readonly store: Store;
  readonly outbox: Outbox;
  readonly following: Following;
  readonly queues: Queues;
  readonly standing: Standing;
  readonly line: Line;
  readonly dispatch: Dispatch;
  readonly breaker: Breaker;
}

/** Asks each shard for its own of these ids, and none that has none of them. */
async function byShard<T>(
  shards: readonly Shard[],
  ids: readonly string[],
  ask: (shard: Shard, ids: readonly string[]) => Promise<T[]>,
): Promise<T[]> {
  const groups = shards.map((shard, i) => ({
    shard,
    own: ids.filter((id) => shardOf(id, shards.length) === i),
  }));
  const asked = groups.filter(({ own }) => own.length > 0).map(({ shard, own }) => ask(shard, own));
  return (await Promise.all(asked)).flat();
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** The first ids of several sorted lists, as one sorted list. */
const firstOf = (lists: readonly (readonly string[])[], limit: number, newestFirst: boolean) =>
  lists
    .flat()
    .sort((a, b) => (a < b === newestFirst ? 1 : -1))
    .slice(0, limit);

/** @param whole the keys that are one for all shards. */
export function joinShards(shards: readonly Shard[], whole: Store['keys']): Shard {
  const of = (id: string) => shards[shardOf(id, shards.length)]!;
  const all = <T>(ask: (shard: Shard) => Promise<T>) => Promise.all(shards.map(ask));
  const each = async (ask: (shard: Shard) => Promise<unknown>) => void (await all(ask));
  const total = async (ask: (shard: Shard) => Promise<number>) => sum(await all(ask));

  const store: Store = {
    keys: whole,
    create: (generation) => of(generation.id).store.create(generation),
    get: (id) => of(id).store.get(id),
    whereabouts: (ids) => byShard(shards, ids, (shard, own) => shard.store.whereabouts(own)),
    transition: (record, to, change) => of(record.id).store.transition(record, to, change),
    overBudget: (record, price, budget) => of(record.id).store.overBudget(record, price, budget),
    beginSubmit: (record, change, budget) => of(record.id).store.beginSubmit(record, change, budget),
    amend: (record, change) => of(record.id).store.amend(record, change),
    idOfTask: async (taskId) =>
      (await all(({ store }) => store.idOfTask(taskId))).find((id) => id !== null) ?? null,
    idOfKey: (tenant, key) => shards[shardOfKey(tenant, key, shards.length)]!.store.idOfKey(tenant, key),
    answers: (id) => of(id).store.answers(id),
    async list(listing) {
      const pages = await all(({ store }) => store.list(listing));
      const ids = firstOf(
        pages.map((page) => page.ids),
        listing.limit,
        true,
      );
      return { ids, cursor: ids.length === listing.limit ? (ids.at(-1) ?? null) : null };
    },
    async countByState(states) {
      const counts = await all(({ store }) => store.countByState(states));
      return Object.fromEntries(states.map((state) => [state, sum(counts.map((one) => one[state] ?? 0))]));
    },
    async live(after, limit) {
      return firstOf(await all(({ store }) => store.live(after, limit)), limit, false);
    },
    async oldest(state, limit) {
      return firstOf(await all(({ store }) => store.oldest(state, limit)), limit, false);
    },
    async countCreated(spans) {
      const counts = await all(({ store }) => store.countCreated(spans));
      return spans.map((_, i) => sum(counts.map((one) => one[i] ?? 0)));
    },
    async sweptAt() {
      // As long ago as where it is longest.
      const times = await all(({ store }) => store.sweptAt());
      return times.includes(null) ? null : Math.min(...times.map(Number));
    },
    prune: (state, cutoffAt, limit) => total(({ store }) => store.prune(state, cutoffAt, limit)),
  };

  const outbox: Outbox = {
    due: (id) => of(id).outbox.due(id),
    dead: (id) => of(id).outbox.dead(id),
    settle: (notification, result) => of(notification.generationId).outbox.settle(notification, result),
    redrive: (id) => of(id).outbox.redrive(id),
    owed: async (after, limit) => firstOf(await all(({ outbox }) => outbox.owed(after, limit)), limit, false),
    deadIds: async (before, limit) =>
      firstOf(await all(({ outbox }) => outbox.deadIds(before, limit)), limit, true),
    countDead: () => total(({ outbox }) => outbox.countDead()),
    countOwed: () => total(({ outbox }) => outbox.countOwed()),
  };

  const following: Following = {
    begin: (id) => of(id).following.begin(id),
    hint: (id, taskId) => of(id).following.hint(id, taskId),
    hints: (id) => of(id).following.hints(id),
  };

  return {
    store,
    outbox,
    following,
    queues: joinQueues(shards, of),
    standing: joinStandings(
      shards.map(({ standing }) => standing),
      (id) => of(id).standing,
    ),
    line: joinLines(shards, of),
    dispatch: {
      soon: (freed) => each(({ dispatch }) => dispatch.soon(freed)),
      wake: () => each(({ dispatch }) => dispatch.wake()),
      async keep(publish) {
        await publish();
        const stops = await all(({ dispatch }) => dispatch.keep(publish));
        return async () => void (await Promise.all(stops.map((stop) => stop())));
      },
    },
    breaker: joinBreakers(shards.map(({ breaker }) => breaker)),
  };
}

function joinQueues(shards: readonly Shard[], of: (id: string) => Shard): Queues {
  const all = <T>(ask: (queues: Queues) => Promise<T>) =>
    Promise.all(shards.map(({ queues }) => ask(queues)));
  return {
    remind: (stage, reminder) => of(reminder.generationId).queues.remind(stage, reminder),
    async remindMany(stage, reminders) {
      const known = new Map(reminders.map((reminder) => [reminder.generationId, reminder]));
      await byShard(shards, [...known.keys()], async ({ queues }, ids) => {
        await queues.remindMany(
          stage,
          ids.map((id) => known.get(id)!),
        );
        return [];
      });
    },
    hasten: (stage, id, priority) => of(id).queues.hasten(stage, id, priority),
    hastenTo: (stage, id, delayMs) => of(id).queues.hastenTo(stage, id, delayMs),
    forget: (stage, id) => of(id).queues.forget(stage, id),
    missing: (stage, ids) => byShard(shards, ids, ({ queues }, own) => queues.missing(stage, own)),
    restore: (stage, reminder) => of(reminder.generationId).queues.restore(stage, reminder),
    changePriority: (stage, id, priority) => of(id).queues.changePriority(stage, id, priority),
    hold: async (name, durationMs) => void (await all((queues) => queues.hold(name, durationMs))),
    release: async (name) => void (await all((queues) => queues.release(name))),
    retirePollQueue: async () => void (await all((queues) => queues.retirePollQueue())),
    async counts(stage) {
      const counts = await all((queues) => queues.counts(stage));
      const total = (of: 'waiting' | 'active' | 'delayed') => sum(counts.map((one) => one[of]));
      return { waiting: total('waiting'), active: total('active'), delayed: total('delayed') };
    },
    async backlog(at) {
      const backlogs = await all((queues) => queues.backlog(at));
      const join = (name: RunName): Backlog => {
        const own = backlogs.map((one) => one[name]);
        const total = (of: 'due' | 'delayed' | 'active') => sum(own.map((one) => one[of]));
        // Held still as a whole only when each is.
        const pausedForMs = Math.min(...own.map((one) => one.pausedForMs));
        return { due: total('due'), delayed: total('delayed'), active: total('active'), pausedForMs };
      };
      const names: readonly RunName[] = [...STAGES, 'sweep'];
      return Object.fromEntries(names.map((name) => [name, join(name)])) as Record<RunName, Backlog>;
    },
    scheduleSweep: async (intervalMs) => void (await all((queues) => queues.scheduleSweep(intervalMs))),
    all: () => shards.flatMap(({ queues }) => queues.all()),
    close: async () => void (await all((queues) => queues.close())),
  };
}

function joinStandings(standings: readonly Standing[], of: (id: string) => Standing): Standing {
  const all = <T>(ask: (standing: Standing) => Promise<T>) => Promise.all(standings.map(ask));
  return {
    refused: async () => (await all((one) => one.refused())).some(Boolean),
    forbidden: (id) => of(id).forbidden(id),
    accepted: async () => (await all((one) => one.accepted())).some(Boolean),
    slowDown: async (call, retryAfterMs) =>
      Math.max(...(await all((one) => one.slowDown(call, retryAfterMs)))),
    isRefused: async () => (await all((one) => one.isRefused())).some(Boolean),
    holdMs: async (call) => Math.max(...(await all((one) => one.holdMs(call)))),
    reset: async () => void (await all((one) => one.reset())),
  };
}

function joinLines(shards: readonly Shard[], of: (id: string) => Shard): Line {
  const all = <T>(ask: (line: Line) => Promise<T>) => Promise.all(shards.map(({ line }) => ask(line)));
  return {
    async publish(limits) {
      await Promise.all(shards.map(({ line }, i) => line.publish(shareOfLimits(limits, i, shards.length))));
    },
    inForce: async () => joinLimits(await all((line) => line.inForce())),
    async letIn(freed) {
      const said = await all((line) => line.letIn(freed));
      const known = said.filter((one) => one !== null);
      if (known.length < said.length) return null;
      return {
        generationIds: known.flatMap(({ generationIds }) => generationIds),
        dueMs: Math.min(...known.map(({ dueMs }) => dueMs)),
      };
    },
    begin: (generation) => of(generation.id).line.begin(generation),
    async rejoin(generations) {
      const known = new Map(generations.map((generation) => [generation.id, generation]));
      const counts = await byShard(shards, [...known.keys()], async ({ line }, ids) => [
        await line.rejoin(ids.map((id) => known.get(id)!)),
      ]);
      return sum(counts);
    },
    putOff: (generation, deadlineAt) => of(generation.id).line.putOff(generation, deadlineAt),
    wakeOverBudget: async () => sum(await all((line) => line.wakeOverBudget())),
    counts: async () => joinCounts(await all((line) => line.counts())),
    ready: async () => (await all((line) => line.ready())).flat(),
  };
}

/** Tenants in line are those of the shard that has most: one may wait in several. */
function joinCounts(counts: readonly LineCounts[]): LineCounts {
  const total = (of: (one: LineCounts) => number) => sum(counts.map(of));
  return {
    inLine: total((one) => one.inLine),
    scheduled: total((one) => one.scheduled),
    overBudget: total((one) => one.overBudget),
    ready: total((one) => one.ready),
    inFlight: total((one) => one.inFlight),
    maxInFlight: added(counts.map((one) => one.maxInFlight)),
    published: counts.every((one) => one.published),
    tenantsInLine: Math.max(...counts.map((one) => one.tenantsInLine)),
    tenantsCapped: Math.max(...counts.map((one) => one.tenantsCapped)),
  };
}

function joinBreakers(breakers: readonly Breaker[]): Breaker {
  const all = <T>(ask: (breaker: Breaker) => Promise<T>) => Promise.all(breakers.map(ask));
  return {
    failed: async (call) => (await all((one) => one.failed(call))).some(Boolean),
    worked: async (call) => (await all((one) => one.worked(call))).some(Boolean),
    async pass(call) {
      const said = await all((one) => one.pass(call));
      return said.reduce((longest, one) => (one.waitMs > longest.waitMs ? one : longest));
    },
    async state(call) {
      // Open where it is open: the earliest says since when.
      const states = await all((one) => one.state(call));
      const open = states.filter((one): one is BreakerState & { openAt: number } => one.openAt !== null);
      return open.sort((a, b) => a.openAt - b.openAt)[0] ?? states[0]!;
    },
    close: async () => void (await all((one) => one.close())),
  };
}
