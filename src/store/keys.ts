/**
 * Every Redis key of the store, built in one place. All share the prefix's hash tag, so that one script may touch
 * several of them on a Redis Cluster. BullMQ's own keys live beside them as `<prefix>:<queue>:…`.
 *
 *   <prefix>:g:<id>                     hash    the record of a generation
 *   <prefix>:answers:<id>               list    what the provider said that decided something, newest last, bounded
 *   <prefix>:state:<state>              zset    ids in that state, score 0: a UUIDv7 sorts by its creation
 *   <prefix>:tenant:<tenant>:<state>    zset    the same of one tenant
 *   <prefix>:live                       zset    ids that need a job: all the sweep ever looks at
 *   <prefix>:tasks                      hash    task id → the generation it belongs to
 *   <prefix>:idem:<tenant>:<key>        string  <generation id> <digest of its request>
 *   <prefix>:layout                     string  the layout of all of this (redis/layout.ts)
 *   <prefix>:events                     stream  one entry per transition, bounded
 *   <prefix>:notifications:<id>         hash    what is owed to the app of that generation
 *   <prefix>:notifications-dead:<id>    hash    what was given up of it
 *   <prefix>:notifications-owed         zset    ids with something owed: what the sweep looks at
 *   <prefix>:notifications-dead         zset    ids with something given up
 *   <prefix>:durations:<kind>           hash    how long tasks of that kind took lately (duration-stats.ts)
 *   <prefix>:durations                  zset    those kinds by their last task, bounded
 *   <prefix>:running                    hash    kind → ages of the tasks still running, as of the last sweep
 *   <prefix>:arrivals                   hash    whether callbacks arrive (callback-trust.ts)
 *   <prefix>:workers                    zset    stage and worker, by until when it is announced (telemetry/presence.ts)
 *   <prefix>:swept                      string  when the last sweep ended, epoch ms
 *   <prefix>:figures:<span>:<number>    hash    what was counted in that minute or hour since 1970 (time-series.ts)
 *   <prefix>:finished                   zset    finished generations, by when they ended: what retention goes by
 *   <prefix>:erased:<id>                hash    what stays of an erased generation (erase.ts)
 *   <prefix>:erased                     zset    erased generations, by when they ended
 *   <prefix>:erasing                    zset    erased generations whose events may still be there
 *   <prefix>:erasing-files              zset    erased generations whose files may still be there
 *   <prefix>:queue-clock                string  the turn of the generation that was submitted last (queued-lua.ts)
 *   <prefix>:queue-turns                zset    tenants, by their next turn
 *   <prefix>:queue-order:<tenant>       zset    its queued generations whose time has come, by their own priority
 *   <prefix>:queue-aging                hash    tenant → how many turns it has had, while it uses priorities
 *   <prefix>:scheduled                  zset    queued generations that wait for their time, by it
 *   <prefix>:chained                    zset    queued generations that wait for the end of another one
 *   <prefix>:before:<id>                zset    generations that start from an asset of this one
 *   <prefix>:input:<id>                 hash    an upload that generations start from (store/inputs.ts)
 *   <prefix>:inputs-of:<tenant>         hash    digest of the bytes → the upload that has them
 *   <prefix>:inputs-unused              zset    uploads that no generation names, by since when
 *   <prefix>:over-budget                zset    queued generations that wait for the next day's budget
 *   <prefix>:parked                     set     tenants with queued generations that wait for a slot of their own
 *   <prefix>:parked:<tenant>            zset    those generations, by their turn
 *   <prefix>:in-flight                  zset    <id>#<number of its submit>, by until when that task may live
 *   <prefix>:in-flight:<tenant>         zset    the tenant's own of them
 *   <prefix>:limits                     hash    the limits in force, as the last worker that started wrote them
 *   <prefix>:limits:tenants             hash    tenant → '<weight> <most in flight or ->'
 *   <prefix>:limits:budgets             hash    tenant → most to spend a day, in millionths
 *   <prefix>:spend:<day>                hash    what was spent on that day (UTC, days since 1970), see submits-lua.ts
 *   <prefix>:gate:<target>              hash    what holds calls of that kind: submit, poll, host:<name> (limits/gate.ts)
 *   <prefix>:gate:rate                  hash    the call rate of the key, as limited and as used
 *   <prefix>:gate:refusals              hash    generations that were refused themselves → how often
 *   <prefix>:gate:hosts                 zset    gates of hosts, by their last use, bounded
 */
import type { State } from '../generation/states.js';

export interface Keys {
  readonly prefix: string;
  record(id: string): string;
  answers(id: string): string;
  state(state: State): string;
  idempotency(tenant: string, key: string): string;
  tenantState(tenant: string, state: State): string;
  notifications(id: string): string;
  deadNotifications(id: string): string;
  readonly notificationsOwed: string;
  readonly notificationsDead: string;
  durations(kind: string): string;
  readonly durationKinds: string;
  readonly running: string;
  readonly arrivals: string;
  /** The hash of one minute or hour, counted from 1970. */
  figures(span: 'minute' | 'hour', number: number): string;
  readonly layout: string;
  readonly tasks: string;
  readonly live: string;
  readonly finished: string;
  erased(id: string): string;
  readonly allErased: string;
  readonly erasing: string;
  readonly erasingFiles: string;
  readonly events: string;
  readonly swept: string;
  gate(target: string): string;
  readonly gateRefusals: string;
  readonly gateHosts: string;
  readonly workers: string;
  /** Generations that wait for an asset of this one. */
  before(id: string): string;
  readonly chained: string;
  input(id: string): string;
  readonly inputsUnused: string;
}

export function createKeys(prefix: string): Keys {
  return {
    prefix,
    record: (id) => `${prefix}:g:${id}`,
    answers: (id) => `${prefix}:answers:${id}`,
    state: (state) => `${prefix}:state:${state}`,
    // The length makes the pair unambiguous whatever characters tenant and key hold.
    idempotency: (tenant, key) => `${prefix}:idem:${tenant.length}:${tenant}:${key}`,
    // The state comes last and holds no colon, so that the pair is unambiguous.
    tenantState: (tenant, state) => `${prefix}:tenant:${tenant}:${state}`,
    notifications: (id) => `${prefix}:notifications:${id}`,
    deadNotifications: (id) => `${prefix}:notifications-dead:${id}`,
    notificationsOwed: `${prefix}:notifications-owed`,
    notificationsDead: `${prefix}:notifications-dead`,
    durations: (kind) => `${prefix}:durations:${kind}`,
    durationKinds: `${prefix}:durations`,
    running: `${prefix}:running`,
    arrivals: `${prefix}:arrivals`,
    figures: (span, number) => `${prefix}:figures:${span}:${number}`,
    layout: `${prefix}:layout`,
    tasks: `${prefix}:tasks`,
    live: `${prefix}:live`,
    finished: `${prefix}:finished`,
    erased: (id) => `${prefix}:erased:${id}`,
    allErased: `${prefix}:erased`,
    erasing: `${prefix}:erasing`,
    erasingFiles: `${prefix}:erasing-files`,
    events: `${prefix}:events`,
    swept: `${prefix}:swept`,
    gate: (target) => `${prefix}:gate:${target}`,
    gateRefusals: `${prefix}:gate:refusals`,
    gateHosts: `${prefix}:gate:hosts`,
    workers: `${prefix}:workers`,
    before: (id) => `${prefix}:before:${id}`,
    chained: `${prefix}:chained`,
    input: (id) => `${prefix}:input:${id}`,
    inputsUnused: `${prefix}:inputs-unused`,
  };
}
