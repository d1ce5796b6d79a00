/**
 * Brings one asset home: fetches it, verifies every byte on the way, stores it. What it returns is in storage, whole,
 * and was looked at; when it rejects, nothing became visible.
 */
import { pipeline } from 'node:stream';
import { StorageError } from '../errors.js';
import { openAsset, type OpenAssetOptions } from '../provider/download.js';
import type { AssetKind } from './sniff.js';
import type { Storage } from './storage.js';
import { createVerifier } from './verify.js';

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
  const verifier = createVerifier({
    kind,
    expectedBytes: asset.expectedBytes,
    maxBytes: fetchOptions.maxBytes,
  });
  // An error on either side ends both; whoever reads the verifier gets it.
  pipeline(asset.body, verifier.stream, () => {});
  try {
    const { contentType, extension } = await verifier.type;
    const stored = await storage.put(`${keyBase}.${extension}`, verifier.stream, {
      contentType,
      moreFollows,
      ...abort,
    });
    if (stored.sha256 !== verifier.result().sha256) {
      throw new StorageError(`${stored.key} was stored with other bytes than were verified.`, true);
    }
    return { ...stored, contentType };
  } finally {
    verifier.stream.destroy();
    asset.body.destroy();
  }
}
