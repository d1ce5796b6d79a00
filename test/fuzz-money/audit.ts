/** What has to be true of Redis and the provider's books once nothing is under way. Every finding is one line. */
import type { Redis } from 'ioredis';
import { chargeOf, type Submit } from '../../src/generation/submits.js';
import { isTerminal, STATES, type State } from '../../src/generation/states.js';
import type { Ledger } from '../../src/simulator/ledger.js';
import type { Order } from './actions.js';

interface Stored {
  readonly id: string;
  readonly state: State;
  readonly tenant: string;
  readonly taskId: string | null;
  readonly submits: readonly Submit[];
}

const QUEUES = ['submit', 'poll', 'archive', 'notify', 'sweep'];
const DAY_MS = 86_400_000;

async function keysOf(redis: Redis, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for (let cursor = '0'; ;) {
    const [next, page] = await redis.scan(cursor, 'MATCH', `${prefix}:*`, 'COUNT', 1000);
    keys.push(...page.map((key) => key.slice(prefix.length + 1)));
    cursor = next;
    if (cursor === '0') return [...new Set(keys)];
  }
}

async function recordsOf(
  redis: Redis,
  prefix: string,
  keys: readonly string[],
): Promise<Map<string, Stored>> {
  const records = new Map<string, Stored>();
  for (const key of keys.filter((name) => name.startsWith('g:'))) {
    const id = key.slice(2);
    const hash = await redis.hgetall(`${prefix}:${key}`);
    records.set(id, {
      id,
      state: (hash['state'] ?? 'missing') as State,
      tenant: hash['tenant'] ?? '',
      taskId: hash['taskId'] ?? null,
      submits: JSON.parse(hash['submits'] ?? '[]') as Submit[],
    });
  }
  return records;
}

/** One generation against the books. */
function auditBills(order: Order, record: Stored | undefined, ledger: Ledger): string[] {
  if (!record) return ['lost'];
  const problems: string[] = [];
  const posts = ledger.submits.filter(
    ({ generationId, taskIds }) => generationId === order.id && taskIds.length > 0,
  );
  if (posts.length > 1 + order.allowed)
    problems.push(`${posts.length} POSTs made tasks, ${1 + order.allowed} were allowed`);
  const known = new Map(
    record.submits.flatMap((submit) => (submit.taskId ? [[submit.taskId, submit] as const] : [])),
  );
  const open = record.submits.filter(({ taskId, bill, extra }) => !taskId && !extra && bill === 'possible');
  const unknown = posts.filter(({ taskIds }) => !taskIds.some((taskId) => known.has(taskId)));
  if (unknown.length > open.length)
    problems.push(`${unknown.length} POSTs with tasks that are not known, ${open.length} of them in doubt`);
  for (const [taskId, { bill }] of known) {
    const task = ledger.tasks.find((one) => one.taskId === taskId);
    if (!task) {
      if (bill === 'charged') problems.push(`${taskId} is charged, and was never made`);
    } else if (task.generationId !== order.id) problems.push(`${taskId} is that of ${task.generationId}`);
    else if (!task.refunded && bill !== 'charged') problems.push(`${taskId} was billed, and is ${bill}`);
  }
  if (record.taskId !== null && !known.has(record.taskId)) problems.push(`${record.taskId} has no entry`);
  return problems;
}

/** Sums and slots that follow from the lists of submits. */
function derive(records: ReadonlyMap<string, Stored>) {
  const spend = new Map<string, number>();
  const slots = new Map<string, number>();
  const add = (name: string, amount: number) => spend.set(name, (spend.get(name) ?? 0) + amount);
  for (const { id, tenant, submits } of records.values()) {
    for (const [i, { at, bill, price, liveUntil }] of submits.entries()) {
      if (liveUntil !== undefined) slots.set(`${id}#${i + 1}`, liveUntil);
      if (price === undefined || (bill !== 'possible' && bill !== 'charged')) continue;
      add(`${Math.floor(at / DAY_MS)} ${bill}`, price);
      add(`${Math.floor(at / DAY_MS)} ${bill}:${tenant}`, price);
    }
  }
  return { spend, slots };
}

async function auditMoney(
  redis: Redis,
  prefix: string,
  keys: readonly string[],
  records: ReadonlyMap<string, Stored>,
) {
  const problems: string[] = [];
  const { spend, slots } = derive(records);
  const written = new Map<string, number>();
  for (const key of keys.filter((name) => name.startsWith('spend:')))
    for (const [field, amount] of Object.entries(await redis.hgetall(`${prefix}:${key}`)))
      written.set(`${key.slice(6)} ${field}`, Number(amount));
  for (const name of new Set([...spend.keys(), ...written.keys()]))
    if ((spend.get(name) ?? 0) !== (written.get(name) ?? 0))
      problems.push(
        `spend ${name}: ${written.get(name) ?? 0} written, ${spend.get(name) ?? 0} in the records`,
      );
  const now = Date.now();
  const held = await redis.zrange(`${prefix}:in-flight`, '0', '-1', 'WITHSCORES');
  for (let i = 0; i < held.length; i += 2) {
    const [member = '', until = ''] = held.slice(i, i + 2);
    if (slots.get(member) !== Number(until))
      problems.push(`slot ${member} until ${until} belongs to nothing`);
  }
  for (const [member, until] of slots) {
    const record = records.get(member.split('#')[0]!)!;
    const own = await redis.zscore(`${prefix}:in-flight:${record.tenant}`, member);
    if (until > now && (!held.includes(member) || Number(own) !== until))
      problems.push(`slot ${member} is not there`);
    const submit = record.submits[Number(member.split('#')[1]) - 1];
    const isOver =
      record.state === 'succeeded' || record.state === 'archiving' || record.state === 'canceled';
    if (isOver && submit?.taskId && submit.taskId === record.taskId)
      problems.push(`slot ${member} is kept although its task is over`);
  }
  return problems;
}

async function auditIndexes(redis: Redis, prefix: string, records: ReadonlyMap<string, Stored>) {
  const problems: string[] = [];
  const members = async (key: string) => new Set(await redis.zrange(`${prefix}:${key}`, '0', '-1'));
  const compare = (name: string, found: ReadonlySet<string>, expected: (record: Stored) => boolean) => {
    for (const record of records.values())
      if (expected(record) !== found.has(record.id))
        problems.push(
          `${name}: ${record.id} (${record.state}) ${found.has(record.id) ? 'stands there' : 'is missing'}`,
        );
    for (const id of found) if (!records.has(id)) problems.push(`${name}: ${id} is gone`);
  };
  const tenants = new Set([...records.values()].map(({ tenant }) => tenant));
  for (const state of STATES) {
    compare(`state:${state}`, await members(`state:${state}`), (record) => record.state === state);
    for (const tenant of tenants)
      compare(
        `tenant:${tenant}:${state}`,
        await members(`tenant:${tenant}:${state}`),
        (record) => record.state === state && record.tenant === tenant,
      );
  }
  compare('finished', await members('finished'), ({ state }) => isTerminal(state));
  const live = await members('live');
  compare('live', live, ({ id, state }) => live.has(id) && (!isTerminal(state) || state === 'expired'));
  const tasks = await redis.hgetall(`${prefix}:tasks`);
  for (const record of records.values())
    for (const { taskId } of record.submits)
      if (taskId && tasks[taskId] !== record.id)
        problems.push(`task ${taskId} of ${record.id} leads to ${tasks[taskId]}`);
  for (const [taskId, id] of Object.entries(tasks)) {
    const owner = records.get(id);
    if (!owner?.submits.some((submit) => submit.taskId === taskId))
      problems.push(`task ${taskId} leads to ${id}, which does not know it`);
  }
  return problems;
}

/** Keys by what they belong to: no pattern that is not known, none of a generation or a job that is gone. */
function auditKeys(keys: readonly string[], records: ReadonlyMap<string, Stored>): string[] {
  const problems: string[] = [];
  const single =
    /^(layout|events|live|finished|tasks|swept|running|arrivals|durations|workers|limits|limits:tenants|limits:budgets|queue-clock|queue-turns|queue-aging|notifications-owed|notifications-dead|in-flight|gate:(submit|poll|rate|hosts|refusals|host:.*)|state:\w+|tenant:.+:\w+|spend:\d+|figures:\w+:\d+|durations:.*|in-flight:.*|idem:.*|erased.*)$/;
  const bull = new RegExp(
    `^(${QUEUES.join('|')}):(id|meta|events|stalled-check|marker|pc|limiter|repeat(:.*)?|stalled|delayed|wait|active|prioritized|priority|completed|failed|de|sweep|repeat:.*)$`,
  );
  for (const key of keys) {
    const owner = /^(?:g|answers|notifications|notifications-dead):([0-9a-f-]{36})$/.exec(key)?.[1];
    if (owner !== undefined) {
      if (!records.has(owner)) problems.push(`${key} belongs to no generation`);
    } else if (!single.test(key) && !bull.test(key)) problems.push(`${key} belongs to nothing`);
  }
  return problems;
}

/** Everything at once; `settled` false leaves out what is true only when nothing is under way. */
export async function audit(
  redis: Redis,
  prefix: string,
  { orders, ledger }: { readonly orders: readonly Order[]; readonly ledger: Ledger },
): Promise<string[]> {
  const keys = await keysOf(redis, prefix);
  const records = await recordsOf(redis, prefix, keys);
  const bills = orders.flatMap((order) => {
    const record = records.get(order.id);
    const about = JSON.stringify(record);
    return auditBills(order, record, ledger).map((problem) => `${order.id}: ${problem} ${about}`);
  });
  return [
    ...bills,
    ...(await auditMoney(redis, prefix, keys, records)),
    ...(await auditIndexes(redis, prefix, records)),
    ...auditKeys(keys, records),
  ];
}

/** Charges of all records by kind, for the figures. */
export async function charges(redis: Redis, prefix: string): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const { submits } of (await recordsOf(redis, prefix, await keysOf(redis, prefix))).values())
    counts.set(chargeOf(submits), (counts.get(chargeOf(submits)) ?? 0) + 1);
  return counts;
}

/** Keys of single generations that are still there. */
export async function leftovers(redis: Redis, prefix: string): Promise<string[]> {
  const stays =
    /^(layout|events|swept|running|arrivals|durations.*|workers|limits.*|queue-(clock|turns|aging)|gate:.*|spend:\d+|figures:.*)$/;
  const ofQueue = new RegExp(
    `^(${QUEUES.join('|')}):(id|meta|events|stalled-check|marker|pc|limiter|repeat.*|sweep.*)$|^sweep:(delayed|wait|active)$`,
  );
  return (await keysOf(redis, prefix)).filter((key) => !stays.test(key) && !ofQueue.test(key));
}
