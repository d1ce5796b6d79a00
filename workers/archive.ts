/**
 * The archive stage: brings the assets home. It promises that `succeeded` means a verified video in the app's own
 * storage, with a manifest beside it; that nothing half-written is ever visible; and that it never bills.
 *
 * The video is required, poster and last frame are best effort: their loss is a warning. A link that does not work may be
 * dead or not valid yet: it costs a try and a fresh poll. While storage cannot be used, or a host of assets is away, the
 * generation waits in `archiving` without using up tries. Every other error uses up a try or fails it at once.
 */
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import type { Context } from './context.js';
import { InvalidInputError, StorageConflictError, StorageError } from '../src/errors.js';
import type {
  Asset,
  Assets,
  AssetUrls,
  FailureCode,
  GenerationRecord,
  RawAnswer,
} from '../src/generation/record.js';
import type { CallResult, Target } from '../src/limits/gate.js';
import type { Warning } from '../src/generation/request.js';
import { since } from '../src/generation/history.js';
import { backoffMs } from '../src/polling/schedule.js';
import { advance, fail } from '../src/pipeline/advance.js';
import { AssetError } from '../src/outbound/asset-error.js';
import { askForTask } from './gated-poll.js';
import { withinLimit } from '../src/outbound/limit.js';
import { done, snooze, type Outcome } from '../src/queue/runner.js';
import { archiveAsset } from '../src/storage/archive-asset.js';
import { removeFiles } from '../src/storage/remove-files.js';
import { assetKeyBase, folderFor, manifestKey, type AssetName } from '../src/storage/paths.js';

const MAX_BACKOFF_MS = 300_000;
const STORAGE_BACKOFF_MS = 5000;
const STORAGE_MAX_BACKOFF_MS = 60_000;
/** The time that storage has to take a file after its download may have ended. */
export const STORAGE_LIMIT_MS = 120_000;

/** A run is counted in the write of its result, so that it costs no write of its own. */
const COUNTED = ['archiveAttempts'] as const;

/** Another run moved this generation on: the result of this one no longer counts. */
class OvertakenError extends Error {}

/** @param step is called before each asset and the manifest, which have limits of their own. */
export async function archive(
  context: Context,
  generationId: string,
  signal: AbortSignal,
  step: () => void = () => {},
): Promise<Outcome> {
  // Sent together: one round trip.
  const [record, answers] = await Promise.all([
    context.store.get(generationId),
    context.store.answers(generationId),
  ]);
  if (record === null) return eraseFiles(context, generationId);
  if (record.state !== 'archiving' || record.urls === null) return done;
  const host = hostOf(context, record.urls);
  const pass = await context.gate.pass(host, { generationId, signal });
  if (pass.kind === 'wait' && (pass.why === 'stopped' || mayWait(context, record)))
    return snooze(pass.waitMs);
  const [answer = null] = answers.slice(-1);
  let stored: { assets: Assets; warnings: readonly Warning[] };
  try {
    const folder = folderOf(context.config.ARCHIVE_KEY_TEMPLATE, record);
    stored = await haulAll(context, record, { folder, urls: record.urls, step }, signal);
    step();
    const manifest = manifestOf(record, record.urls, stored.assets, answer);
    await writeManifest(context, record, manifestKey(folder), manifest, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    return recover(context, record, error, signal);
  }
  await reportHost(context, record, { kind: 'answered' });
  return succeed(context, record, stored.assets, stored.warnings);
}

async function haulAll(
  context: Context,
  record: GenerationRecord,
  { folder, urls, step }: { readonly folder: string; readonly urls: AssetUrls; readonly step: () => void },
  signal: AbortSignal,
): Promise<{ assets: Assets; warnings: Warning[] }> {
  const warnings: Warning[] = [];
  const get = (name: AssetName, url: string): Promise<Asset> => {
    step();
    return haul(context, record, { folder, name, url, warnings }, signal);
  };
  const bestEffort = async (name: 'poster' | 'lastFrame', url: string | null): Promise<Asset | null> => {
    if (url === null) return null;
    try {
      return await get(name, url);
    } catch (error) {
      // Storage that fails for a picture fails for the video as well, and is worth waiting for.
      if (error instanceof StorageError || signal.aborted) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      warnings.push({
        code: name === 'poster' ? 'poster_lost' : 'last_frame_lost',
        message: reason.slice(0, 500),
      });
      return null;
    }
  };
  // The video first: without it nothing else counts.
  const video = await get('video', urls.video);
  const poster = await bestEffort('poster', urls.poster);
  const lastFrame = await bestEffort('lastFrame', urls.lastFrame);
  return { assets: { video, poster, lastFrame }, warnings };
}

interface Haul {
  readonly folder: string;
  readonly name: AssetName;
  readonly url: string;
  readonly warnings: Warning[];
}

function haul(
  { config, storage, now, assetHosts }: Context,
  { taskId }: GenerationRecord,
  { folder, name, url, warnings }: Haul,
  signal: AbortSignal,
): Promise<Asset> {
  const api = { baseUrl: config.COMETAPI_BASE_URL, key: config.COMETAPI_KEY };
  const work = (within: AbortSignal): Promise<Asset> =>
    archiveAsset({
      storage,
      url,
      kind: name === 'video' ? 'video' : 'image',
      keyBase: assetKeyBase(folder, name),
      signal: within,
      // The manifest follows: it flushes the folder before the generation succeeds.
      moreFollows: true,
      onTrailingBytes: (sizeBytes) =>
        warnings.push({
          code: 'trailing_bytes',
          message: `${sizeBytes} bytes behind the end of the ${name} were kept with it.`,
        }),
      fetchOptions: {
        api: { ...api, ...(taskId === null ? {} : { taskId }) },
        agents: assetHosts,
        userAgent: config.ARCHIVE_USER_AGENT,
        idleTimeoutMs: config.ARCHIVE_IDLE_TIMEOUT_MS,
        totalTimeoutMs: config.ARCHIVE_TIMEOUT_MS,
        maxBytes: config.ARCHIVE_MAX_BYTES,
        now,
      },
    });
  // The download ends by its own limit: what is still silent then is the storage.
  return withinLimit(config.ARCHIVE_TIMEOUT_MS + STORAGE_LIMIT_MS, signal, work, storageHangs);
}

const storageHangs = (): StorageError => new StorageError('The storage does not answer.', true);

/** The generation was erased: its files follow, in the one stage that writes them. */
async function eraseFiles(context: Context, generationId: string): Promise<Outcome> {
  const { store, storage, config, log, dice } = context;
  const left = await store.eraser.filesToErase(generationId);
  if (left === null) return done;
  const folders = new Set([folderOf(config.ARCHIVE_KEY_TEMPLATE, { id: generationId, ...left })]);
  for (const asset of Object.values(left.assets ?? {}) as (Asset | null)[])
    if (asset !== null) folders.add(posix.dirname(asset.key));
  try {
    await removeFiles(storage, folders);
  } catch (error) {
    log.error(
      { generationId, alarm: 'storage', err: error },
      'files of an erased generation are still there',
    );
    return snooze(backoffMs(1, STORAGE_MAX_BACKOFF_MS, STORAGE_MAX_BACKOFF_MS, dice()));
  }
  await store.eraser.filesErased(generationId);
  log.info({ generationId }, 'the files of an erased generation were removed');
  return done;
}

function folderOf(
  template: string,
  { id, tenant, metadata, createdAt }: Pick<GenerationRecord, 'id' | 'tenant' | 'metadata' | 'createdAt'>,
): string {
  return folderFor(template, { generationId: id, tenant, metadata, createdAt });
}

/** The request, its result and its origin: enough to understand the files without Redis. */
function manifestOf(
  record: GenerationRecord,
  urls: AssetUrls,
  assets: Assets,
  provider: RawAnswer | null,
): object {
  const described = (asset: Asset | null, sourceUrl: string | null) =>
    asset === null ? null : { ...asset, sourceUrl };
  return {
    version: 1,
    generationId: record.id,
    tenant: record.tenant,
    idempotencyKey: record.idempotencyKey,
    taskId: record.taskId,
    otherTaskIds: record.otherTaskIds,
    request: record.request,
    metadata: record.metadata,
    createdAt: record.createdAt,
    submittedAt: record.submittedAt,
    acceptedAt: record.acceptedAt,
    late: record.late,
    provider,
    assets: {
      video: described(assets.video, urls.video),
      poster: described(assets.poster, urls.poster),
      lastFrame: described(assets.lastFrame, urls.lastFrame),
    },
  };
}

async function writeManifest(
  { storage, store }: Context,
  { id, rev }: GenerationRecord,
  key: string,
  manifest: object,
  signal: AbortSignal,
): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
  const write = (within: AbortSignal) =>
    storage.put(key, Readable.from([bytes]), { contentType: 'application/json', signal: within });
  const replace = async (within: AbortSignal) => {
    try {
      await write(within);
    } catch (error) {
      if (!(error instanceof StorageConflictError)) throw error;
      // It is of an earlier try that stopped before its last transition, and derived data. Of a generation that another
      // run has ended meanwhile (this one lost its lock and woke up late) it is the manifest that counts.
      const current = await store.get(id);
      if (current?.state !== 'archiving' || current.rev !== rev) throw new OvertakenError();
      within.throwIfAborted();
      await storage.remove(key);
      await write(within);
    }
  };
  await withinLimit(STORAGE_LIMIT_MS, signal, replace, storageHangs);
}

async function succeed(
  context: Context,
  record: GenerationRecord,
  assets: Assets,
  warnings: readonly Warning[],
): Promise<Outcome> {
  const moved = await advance(context, record, 'succeeded', {
    set: {
      archiveAttempts: record.attempts.archive + 1,
      assets: JSON.stringify(assets),
      urls: null,
      ...(warnings.length > 0 ? { warnings: JSON.stringify([...record.warnings, ...warnings]) } : {}),
    },
  });
  return moved ? done : snooze(0);
}

/** Decides by class and kind of the error how the archive goes on. */
async function recover(
  context: Context,
  record: GenerationRecord,
  error: unknown,
  signal: AbortSignal,
): Promise<Outcome> {
  const { log, dice } = context;
  const { id: generationId } = record;
  if (error instanceof OvertakenError) return snooze(0);
  if (error instanceof StorageError) {
    log.error({ generationId, alarm: 'storage', err: error }, 'storage cannot be used; the generation waits');
    await context.store.amend(record, { count: COUNTED });
    return snooze(backoffMs(record.attempts.archive + 1, STORAGE_BACKOFF_MS, STORAGE_MAX_BACKOFF_MS, dice()));
  }
  if (error instanceof StorageConflictError) {
    return end(context, record, 'asset_invalid', `${error.message} Move it away and retry.`);
  }
  if (error instanceof InvalidInputError)
    return end(context, record, 'archive_attempts_exhausted', error.message);
  if (!(error instanceof AssetError)) {
    log.error({ generationId, stage: 'archive', err: error }, 'the archive met an error it does not know');
    return tryAgain(
      context,
      record,
      'archive_attempts_exhausted',
      'an error that the log of the worker describes',
    );
  }
  const { kind, httpStatus, message: reason, detail } = error;
  log.warn(
    { generationId, kind, httpStatus, reason, ...(detail === null ? {} : { detail }) },
    'the download failed',
  );

  // A host that may not be fetched was not asked.
  const hostMs = kind === 'forbiddenHost' ? 0 : await reportHost(context, record, resultOf(error));
  switch (kind) {
    case 'forbiddenHost':
      return end(context, record, 'asset_forbidden', reason);
    case 'tooLarge':
      return end(context, record, 'asset_too_large', reason);
    case 'gone':
      return refreshLink(context, record, error, signal);
    case 'invalid':
      return tryAgain(context, record, 'asset_invalid', reason, error.retryAfterMs);
    case 'unavailable': {
      if (hostMs > 0 && mayWait(context, record)) {
        await context.store.amend(record, { count: COUNTED });
        return snooze(hostMs);
      }
      return tryAgain(context, record, 'archive_attempts_exhausted', reason, error.retryAfterMs);
    }
  }
}

/** Uses up a try: waits longer each time, and fails for good after the last. */
async function tryAgain(
  context: Context,
  record: GenerationRecord,
  code: FailureCode,
  reason: string,
  retryAfterMs: number | null = null,
): Promise<Outcome> {
  const failures = record.archiveFailures + 1;
  if (failures >= context.config.ARCHIVE_ATTEMPTS)
    return end(context, record, code, `${failures} tries; the last: ${reason}`);
  await context.store.amend(record, { set: { archiveFailures: failures }, count: COUNTED });
  return snooze(Math.max(afterFailures(context, failures), retryAfterMs ?? 0));
}

function afterFailures({ config, dice }: Context, failures: number): number {
  return backoffMs(failures, config.ARCHIVE_BACKOFF_MS, MAX_BACKOFF_MS, dice());
}

/** A content link of the API may be relative to it. */
function hostOf({ config }: Context, { video }: AssetUrls): Target {
  const base = config.COMETAPI_BASE_URL;
  return `host:asset@${URL.canParse(video, base) ? new URL(video, base).host : video}`;
}

/** Waiting for the provider or for a host that is away uses up no tries, but only for a time: links expire. */
function mayWait({ config, now }: Context, { trail, createdAt }: GenerationRecord): boolean {
  return now() - since(trail, createdAt) < config.ARCHIVE_OUTAGE_MS;
}

/** What a download says about its host. Returns how long the gate holds it, in ms; 0: it does not. */
async function reportHost(
  context: Context,
  { id: generationId, urls }: GenerationRecord,
  result: CallResult,
): Promise<number> {
  if (urls === null) return 0;
  const { gate, log } = context;
  const host = hostOf(context, urls);
  const told = { generationId, probe: false, leftAgoMs: 0, result };
  const { opened, closed, waitMs } = await gate.report(host, told);
  if (opened === 'away')
    log.error({ stage: 'archive', host, alarm: 'provider_away' }, 'a host of assets seems to be away');
  if (closed) log.info({ stage: 'archive', host }, 'the host is back');
  return waitMs;
}

function resultOf({ kind, httpStatus, retryAfterMs }: AssetError): CallResult {
  if (kind !== 'unavailable') return { kind: 'answered' };
  if (httpStatus === 429) return { kind: 'rateLimited', retryAfterMs };
  return { kind: httpStatus === null || httpStatus >= 500 ? 'away' : 'answered' };
}

/**
 * The link does not work. The file of a task that ended moments ago may not be on its host yet, so this is a try with
 * backoff and a fresh poll for the link. The first link that differs is fetched at once: the old one was dead. What goes
 * wrong with the poll is only a reason to ask again later.
 */
async function refreshLink(
  context: Context,
  record: GenerationRecord,
  error: AssetError,
  signal: AbortSignal,
): Promise<Outcome> {
  const { store, config } = context;
  const failures = record.archiveFailures + 1;
  if (failures >= config.ARCHIVE_ATTEMPTS)
    return end(context, record, 'asset_expired', `${failures} tries; the last: ${error.message}`);
  const waitMs = Math.max(afterFailures(context, failures), error.retryAfterMs ?? 0);
  const asked = await askForTask(context, record, signal);
  const { outcome, heldMs } = asked.kind === 'wait' ? { outcome: null, heldMs: asked.waitMs } : asked;
  if (outcome === null || (heldMs > 0 && mayWait(context, record))) {
    await store.amend(record, { count: COUNTED });
    return snooze(heldMs);
  }
  if (outcome.kind !== 'succeeded') {
    await store.amend(record, { set: { archiveFailures: failures }, count: [...COUNTED, 'pollAttempts'] });
    return snooze(waitMs);
  }
  const { videoUrl: video, posterUrl: poster, lastFrameUrl: lastFrame, answer } = outcome;
  const isOther = video !== record.urls?.video;
  const urls = JSON.stringify({ video, poster, lastFrame });
  const set = { urls, archiveFailures: failures, ...(isOther ? { linkRefreshed: 1 } : {}) };
  await store.amend(record, { set, count: [...COUNTED, 'pollAttempts'], answer });
  return snooze(isOther && !record.linkRefreshed ? 0 : waitMs);
}

async function end(
  context: Context,
  record: GenerationRecord,
  code: FailureCode,
  message: string,
): Promise<Outcome> {
  const failure = { code, message, stage: 'archive' as const, retryable: true };
  const failed = await fail(context, record, failure, { count: COUNTED });
  return failed ? done : snooze(0);
}
