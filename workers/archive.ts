/**
 * The archive stage: brings the assets home. It promises that `succeeded` means a verified video in the app's own
 * storage, with a manifest beside it; that nothing half-written is ever visible; and that it never bills.
 *
 * The video is required, poster and last frame are best effort: their loss is a warning. A dead link costs one fresh
 * poll. While storage cannot be used, or a host of assets is away, the generation waits in `archiving` without using up
 * tries.
 */
import { Readable } from 'node:stream';
import type { Context } from './context.js';
import { StorageConflictError, StorageError } from '../src/errors.js';
import type { Asset, Assets, AssetUrls, FailureCode, GenerationRecord } from '../src/generation/record.js';
import type { Warning } from '../src/generation/request.js';
import { since } from '../src/generation/history.js';
import { backoffMs } from '../src/polling/schedule.js';
import { advance, fail } from '../src/pipeline/advance.js';
import { AssetError } from '../src/outbound/asset-error.js';
import { done, snooze, type Outcome } from '../src/queue/runner.js';
import { archiveAsset } from '../src/storage/archive-asset.js';
import { assetKeyBase, folderFor, manifestKey, type AssetName } from '../src/storage/paths.js';

const MAX_BACKOFF_MS = 300_000;
const STORAGE_BACKOFF_MS = 5000;
const STORAGE_MAX_BACKOFF_MS = 60_000;

export async function archive(context: Context, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const record = await context.store.get(generationId);
  if (record?.state !== 'archiving' || record.urls === null) return done;
  const host = hostOf(record.urls.video);
  const { waitMs } = await context.breaker.pass(host);
  if (waitMs > 0 && mayWait(context, record)) return snooze(waitMs);
  await context.store.amend(record, { count: ['archiveAttempts'] });
  try {
    const folder = folderOf(context.config.ARCHIVE_KEY_TEMPLATE, record);
    const { assets, warnings } = await haulAll(context, folder, record.urls, signal);
    if (await context.breaker.worked(host)) context.log.info({ stage: 'archive', host }, 'the host is back');
    await writeManifest(context, record, folder, record.urls, assets);
    return await succeed(context, record, assets, warnings);
  } catch (error) {
    if (signal.aborted) throw error;
    return recover(context, record, error, signal);
  }
}

async function haulAll(
  context: Context,
  folder: string,
  urls: AssetUrls,
  signal: AbortSignal,
): Promise<{ assets: Assets; warnings: Warning[] }> {
  const warnings: Warning[] = [];
  const bestEffort = async (name: 'poster' | 'lastFrame', url: string | null): Promise<Asset | null> => {
    if (url === null) return null;
    try {
      return await haul(context, folder, name, url, signal);
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
  const video = await haul(context, folder, 'video', urls.video, signal);
  const poster = await bestEffort('poster', urls.poster);
  const lastFrame = await bestEffort('lastFrame', urls.lastFrame);
  return { assets: { video, poster, lastFrame }, warnings };
}

function haul(
  { config, storage, now, assetHosts }: Context,
  folder: string,
  name: AssetName,
  url: string,
  signal: AbortSignal,
): Promise<Asset> {
  return archiveAsset({
    storage,
    url,
    kind: name === 'video' ? 'video' : 'image',
    keyBase: assetKeyBase(folder, name),
    signal,
    // The manifest does, before the generation succeeds.
    moreFollows: true,
    fetchOptions: {
      api: { baseUrl: config.COMETAPI_BASE_URL, key: config.COMETAPI_KEY },
      agents: assetHosts,
      idleTimeoutMs: config.ARCHIVE_IDLE_TIMEOUT_MS,
      totalTimeoutMs: config.ARCHIVE_TIMEOUT_MS,
      maxBytes: config.ARCHIVE_MAX_BYTES,
      now,
    },
  });
}

function folderOf(template: string, { id, tenant, metadata, createdAt }: GenerationRecord): string {
  return folderFor(template, { generationId: id, tenant, metadata, createdAt });
}

/** What was asked, what came of it, and where from: enough to make sense of the files without Redis. */
async function writeManifest(
  { storage, store }: Context,
  record: GenerationRecord,
  folder: string,
  urls: AssetUrls,
  assets: Assets,
): Promise<void> {
  const described = (asset: Asset | null, sourceUrl: string | null) =>
    asset === null ? null : { ...asset, sourceUrl };
  const manifest = {
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
    provider: (await store.answers(record.id)).at(-1) ?? null,
    assets: {
      video: described(assets.video, urls.video),
      poster: described(assets.poster, urls.poster),
      lastFrame: described(assets.lastFrame, urls.lastFrame),
    },
  };
  const key = manifestKey(folder);
  const write = () =>
    storage.put(key, Readable.from([Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)]), {
      contentType: 'application/json',
    });
  try {
    await write();
  } catch (error) {
    if (!(error instanceof StorageConflictError)) throw error;
    // It is of an earlier try of this very generation that stopped before its last transition, and derived data.
    await storage.remove(key);
    await write();
  }
}

async function succeed(
  context: Context,
  record: GenerationRecord,
  assets: Assets,
  warnings: readonly Warning[],
): Promise<Outcome> {
  const moved = await advance(context, record, 'succeeded', {
    set: {
      assets: JSON.stringify(assets),
      urls: null,
      charge: 'charged',
      ...(warnings.length > 0 ? { warnings: JSON.stringify([...record.warnings, ...warnings]) } : {}),
    },
  });
  return moved ? done : snooze(0);
}

/** Which of the ways on fits this error, decided by its class and kind. */
async function recover(
  context: Context,
  record: GenerationRecord,
  error: unknown,
  signal: AbortSignal,
): Promise<Outcome> {
  const { config, store, log, dice } = context;
  const { id: generationId } = record;
  if (error instanceof StorageError) {
    log.error({ generationId, alarm: 'storage', err: error }, 'storage cannot be used; the generation waits');
    return snooze(backoffMs(record.attempts.archive + 1, STORAGE_BACKOFF_MS, STORAGE_MAX_BACKOFF_MS, dice()));
  }
  if (error instanceof StorageConflictError) {
    return end(context, record, 'asset_invalid', `${error.message} Move it away and retry.`);
  }
  if (!(error instanceof AssetError)) throw error;
  log.warn(
    { generationId, kind: error.kind, httpStatus: error.httpStatus, reason: error.message },
    'the download failed',
  );

  switch (error.kind) {
    case 'forbiddenHost':
      return end(context, record, 'asset_forbidden', error.message);
    case 'tooLarge':
      return end(context, record, 'asset_too_large', error.message);
    case 'gone':
      return record.linkRefreshed
        ? end(context, record, 'asset_expired', error.message)
        : refreshLink(context, record, signal);
    case 'invalid':
    case 'unavailable': {
      const hostMs = await waitForHost(context, record, error);
      if (hostMs !== null) return snooze(hostMs);
      const failures = record.archiveFailures + 1;
      if (failures >= config.ARCHIVE_ATTEMPTS) {
        const code = error.kind === 'invalid' ? 'asset_invalid' : 'archive_attempts_exhausted';
        return end(context, record, code, `${failures} tries; the last: ${error.message}`);
      }
      await store.amend(record, { set: { archiveFailures: failures } });
      const waitMs = backoffMs(failures, config.ARCHIVE_BACKOFF_MS, MAX_BACKOFF_MS, dice());
      return snooze(Math.max(waitMs, error.retryAfterMs ?? 0));
    }
  }
}

const hostOf = (url: string) => `asset@${URL.canParse(url) ? new URL(url).host : url}` as const;

/** Waiting for a host that is away uses up no tries, for a time: the links do not live for ever. */
function mayWait({ config, now }: Context, { trail, createdAt }: GenerationRecord): boolean {
  return now() - since(trail, createdAt) < config.ARCHIVE_OUTAGE_MS;
}

/** Nobody was there, as for others before: how long to wait for that host. Null when this is a try of its own. */
async function waitForHost(
  context: Context,
  record: GenerationRecord,
  { kind, httpStatus }: AssetError,
): Promise<number | null> {
  if (kind !== 'unavailable' || (httpStatus !== null && httpStatus < 500)) return null;
  const { breaker, log } = context;
  const host = hostOf(record.urls?.video ?? '');
  if (await breaker.failed(host))
    log.error({ stage: 'archive', host, alarm: 'provider_away' }, 'a host of assets seems to be away');
  if (!mayWait(context, record)) return null;
  const { openAt, probeAt } = await breaker.state(host);
  return openAt === null
    ? null
    : Math.min(Math.max(1, (probeAt ?? 0) - context.now()), context.config.BREAKER_PROBE_MS);
}

/** A dead link is answered by one fresh poll. What goes wrong with that poll is only a reason to ask again later. */
async function refreshLink(
  context: Context,
  record: GenerationRecord,
  signal: AbortSignal,
): Promise<Outcome> {
  const { provider, store, config, dice } = context;
  const outcome = await provider.poll(record.taskId ?? '', { signal });
  const failures = record.archiveFailures + 1;
  if (outcome.kind === 'succeeded') {
    const { videoUrl: video, posterUrl: poster, lastFrameUrl: lastFrame, answer } = outcome;
    const urls = JSON.stringify({ video, poster, lastFrame });
    await store.amend(record, { set: { urls, linkRefreshed: 1 }, count: ['pollAttempts'], answer });
    return snooze(0);
  }
  if (failures >= config.ARCHIVE_ATTEMPTS) {
    return end(context, record, 'asset_expired', 'The link is dead, and the provider gives no fresh one.');
  }
  await store.amend(record, { set: { archiveFailures: failures }, count: ['pollAttempts'] });
  return snooze(backoffMs(failures, config.ARCHIVE_BACKOFF_MS, MAX_BACKOFF_MS, dice()));
}

async function end(
  context: Context,
  record: GenerationRecord,
  code: FailureCode,
  message: string,
): Promise<Outcome> {
  const failed = await fail(context, record, {
    code,
    message,
    stage: 'archive',
    retryable: true,
    charge: 'charged',
  });
  return failed ? done : snooze(0);
}
