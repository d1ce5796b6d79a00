/**
 * Archives one asset: fetches it, verifies every byte while it streams, and stores it. When this resolves, the complete,
 * verified file is in the storage; when it rejects, nothing became visible.
 */
import { StorageError } from '../errors.js';
import { openAsset, type OpenAssetOptions } from '../outbound/download.js';
import { decode } from '../media/decode.js';
import type { AssetKind } from '../media/sniff.js';
import type { Storage } from './storage.js';
import { verify } from '../media/verify.js';

export interface ArchiveAssetOptions {
  readonly storage: Storage;
  readonly url: string;
  readonly kind: AssetKind;
  /** The key without its extension, which follows the bytes (`paths.ts`, `assetKeyBase`). */
  readonly keyBase: string;
  /** Limits and allowed hosts. */
  readonly fetchOptions: Omit<OpenAssetOptions, 'signal'>;
  readonly signal?: AbortSignal;
  /** As for `Storage.put`. */
  readonly moreFollows?: boolean;
  /** Told how many bytes behind the end of the format were kept, when there are any. */
  readonly onTrailingBytes?: (sizeBytes: number) => void;
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
  const { storage, url, kind, keyBase, fetchOptions, signal, moreFollows = false, onTrailingBytes } = options;
  const abort = signal === undefined ? {} : { signal };
  const {
    body,
    contentEncoding,
    expectedBytes: announced,
  } = await openAsset(url, { ...fetchOptions, ...abort });
  try {
    const { stream: bytes, wasEncoded } = await decode(body, contentEncoding);
    const expectedBytes = wasEncoded ? null : announced;
    const verified = verify(bytes, { kind, expectedBytes, maxBytes: fetchOptions.maxBytes });
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
      if (verified.trailingBytes() > 0) onTrailingBytes?.(verified.trailingBytes());
      return { ...stored, contentType };
    } finally {
      verified.stream.destroy();
    }
  } finally {
    body.destroy();
  }
}
