/**
 * Brings one asset home: fetches it, verifies every byte on the way, stores it. What it returns is in storage, whole,
 * and was looked at; when it rejects, nothing became visible.
 */
import { StorageError } from '../errors.js';
import { openAsset, type OpenAssetOptions } from '../outbound/download.js';
import type { AssetKind } from '../media/sniff.js';
import type { Storage } from './storage.js';
import { verify } from '../media/verify.js';

export interface ArchiveAssetOptions {
  readonly storage: Storage;
  readonly url: string;
  readonly kind: AssetKind;
  /** The key without its extension, which follows the bytes (`keys.ts`, `assetKeyBase`). */
  readonly keyBase: string;
  /** Limits and allowed hosts. */
  readonly fetchOptions: Omit<OpenAssetOptions, 'signal'> & { readonly maxBytes: number };
  readonly signal?: AbortSignal;
  /** As for `Storage.put`. */
  readonly moreFollows?: boolean;
}

export interface ArchivedAsset {
  readonly key: string;
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly contentType: string;
}

/**
 * @throws AssetError (the link or its bytes), StorageError and StorageConflictError (the storage), the reason of `signal`.
 */
export async function archiveAsset(options: ArchiveAssetOptions): Promise<ArchivedAsset> {
  const { storage, url, kind, keyBase, fetchOptions, signal, moreFollows = false } = options;
  const abort = signal === undefined ? {} : { signal };
  const asset = await openAsset(url, { ...fetchOptions, ...abort });
  const { maxBytes } = fetchOptions;
  const verified = verify(asset.body, { kind, expectedBytes: asset.expectedBytes, maxBytes });
  try {
    const { contentType, extension } = await verified.type;
    const stored = await storage.put(`${keyBase}.${extension}`, verified.stream, {
      contentType,
      moreFollows,
      ...abort,
    });
    if (stored.sizeBytes !== verified.sizeBytes()) {
      throw new StorageError(`${stored.key} was stored with other bytes than were verified.`, true);
    }
    return { ...stored, contentType };
  } finally {
    verified.stream.destroy();
  }
}
