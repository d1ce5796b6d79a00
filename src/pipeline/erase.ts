/**
 * Erasing generations. The record is replaced by its stub in one step; then jobs and events go, and a job of the archive
 * stage removes the files, since only workers are sure to have the storage. Every step may be repeated, and the sweep
 * finishes what a crash interrupted.
 */
import { InvalidInputError, MayBeBilledError, NotFoundError } from '../errors.js';
import type { Erased } from '../store/erase.js';
import type { Hub } from './context.js';

const PAGE = 200;

export interface EraseOptions {
  /** Also what may still be billed. Its last known bill stays in the stub; a later one is not noticed. */
  readonly evenIfBilled?: boolean;
}

export interface TenantErased {
  /** How many generations were erased. */
  readonly erased: number;
  /** How many stay, since they may still be billed. */
  readonly kept: number;
}

/** Takes away the jobs and events of erased generations, and adds the jobs that remove their files. */
export async function finishErasing(hub: Hub, ids: readonly string[]): Promise<void> {
  for (const id of ids)
    for (const stage of ['submit', 'poll', 'notify'] as const) await hub.queues.forget(stage, id);
  await hub.store.eraser.eraseEvents(ids);
  for (const id of ids) {
    // A run that is under way keeps its job, and removes the files when it finds the generation gone.
    if ((await hub.store.eraser.filesToErase(id)) !== null) await hub.queues.hasten('archive', id);
    else await hub.queues.forget('archive', id);
  }
}

/** @throws NotFoundError, MayBeBilledError, NewerRecordError */
export async function erase(
  hub: Hub,
  generationId: string,
  { evenIfBilled = false }: EraseOptions = {},
): Promise<Erased> {
  const { eraser } = hub.store;
  if (!(await eraser.erase(generationId, { evenIfBilled }))) throw new NotFoundError(generationId);
  await finishErasing(hub, [generationId]);
  const erased = await eraser.erased(generationId);
  if (!erased) throw new NotFoundError(generationId);
  hub.log.info({ generationId, charge: erased.charge }, 'generation erased');
  return erased;
}

/** Those of these that are erased now; the others may still be billed, or are gone. */
async function eraseMany(hub: Hub, ids: readonly string[], evenIfBilled: boolean): Promise<string[]> {
  const erased = await Promise.all(
    ids.map(async (id) => {
      try {
        return await hub.store.eraser.erase(id, { evenIfBilled });
      } catch (error) {
        if (error instanceof MayBeBilledError) return false;
        throw error;
      }
    }),
  );
  const gone = ids.filter((_, i) => erased[i]);
  await finishErasing(hub, gone);
  return gone;
}

/**
 * Erases every generation of a tenant, and its name with the last of them. What is enqueued for it meanwhile may stay.
 * @throws InvalidInputError without a name; NewerRecordError
 */
export async function eraseTenant(
  hub: Hub,
  tenant: string,
  { evenIfBilled = false }: EraseOptions = {},
): Promise<TenantErased> {
  if (tenant === '') {
    const problem = { path: 'tenant', message: 'expected the name of a tenant, got an empty text' };
    throw new InvalidInputError('Nothing was erased', [problem]);
  }
  let erased = 0;
  let kept = 0;
  for (let before: string | null | undefined; before !== null;) {
    const page = await hub.store.list({ tenant, limit: PAGE, ...(before ? { before } : {}) });
    const gone = await eraseMany(hub, page.ids, evenIfBilled);
    erased += gone.length;
    kept += page.ids.length - gone.length;
    before = page.cursor;
  }
  if (kept === 0) {
    await hub.inputs.expire(tenant);
    await hub.store.eraser.forgetTenant(tenant, hub.now());
  }
  hub.log.info({ erased, kept }, 'a tenant was erased');
  return { erased, kept };
}

/** Erases what ended before `cutoffAt` (epoch ms); what may still be billed stays. @returns how many */
export async function eraseFinished(hub: Hub, cutoffAt: number, limit: number): Promise<number> {
  let erased = 0;
  for (let kept = 0; erased + kept < limit;) {
    const ids = await hub.store.eraser.finishedBefore(cutoffAt, kept, PAGE);
    if (ids.length === 0) break;
    const gone = await eraseMany(hub, ids, false);
    erased += gone.length;
    kept += ids.length - gone.length;
  }
  return erased;
}
