/** What the inbox shows: unconfirmed generations, notifications that were given up, and failures. */
import type { GenerationRecord } from '../../generation/record.js';
import type { Hub } from '../../pipeline/context.js';
import { redriveOf } from '../../pipeline/operations.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Notification } from '../../store/outbox.js';
import type { Store } from '../../store/store.js';
import { load } from './search.js';

/** How many of each kind are shown at first, and at most, which is how many can be decided at once. */
export const SHOWN = { first: 15, most: 100 } as const;
export type Shown = keyof typeof SHOWN;
/** Failures have no index by their reason: this many of the newest are searched. */
export const LOOKED_AT = 200;

/** A generation with notifications that were given up. */
export interface Dead {
  readonly record: GenerationRecord;
  readonly notifications: readonly Notification[];
}

interface Contents {
  readonly unconfirmed: readonly GenerationRecord[];
  readonly dead: readonly Dead[];
  readonly retryable: readonly GenerationRecord[];
  readonly rejected: readonly GenerationRecord[];
  /** How many of the last two there are, shown or not. */
  readonly all: { readonly retryable: number; readonly rejected: number };
}

/** Can a retry that bills nothing help? A poll of a task that failed finds the same failure again. */
export function canHelp(record: GenerationRecord): boolean {
  const redrive = redriveOf(record, false);
  return redrive === 'archive' || (redrive === 'poll' && record.failure?.code !== 'task_failed');
}

async function byGeneration(store: Store, notifications: readonly Notification[]): Promise<Dead[]> {
  const groups = new Map<string, Notification[]>();
  for (const one of notifications)
    groups.set(one.generationId, [...(groups.get(one.generationId) ?? []), one]);
  const dead = await Promise.all(
    [...groups].map(async ([id, own]) => ({ record: await store.get(id), notifications: own })),
  );
  return dead.flatMap(({ record, notifications: own }) =>
    record === null ? [] : [{ record, notifications: own }],
  );
}

export async function readInbox({ store }: Hub, reelhaul: Reelhaul, shown: Shown): Promise<Contents> {
  const limit = SHOWN[shown];
  const [unconfirmed, failed, { notifications }] = await Promise.all([
    store.list({ state: 'unconfirmed', limit }).then(({ ids }) => load(store, ids)),
    store.list({ state: 'failed', limit: LOOKED_AT }).then(({ ids }) => load(store, ids)),
    reelhaul.deadNotifications({ limit }),
  ]);
  const retryable = failed.filter((record) => record.failure?.retryable === true && canHelp(record));
  const rejected = failed.filter(({ failure }) => failure?.code === 'request_rejected');
  return {
    unconfirmed,
    dead: await byGeneration(store, notifications),
    retryable: retryable.slice(0, limit),
    rejected: rejected.slice(0, limit),
    all: { retryable: retryable.length, rejected: rejected.length },
  };
}
