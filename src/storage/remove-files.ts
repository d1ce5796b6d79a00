/** Removes all files of one generation. */
import { EXTENSIONS } from '../media/sniff.js';
import { assetKeyBase, manifestKey, type AssetName } from './paths.js';
import type { Storage } from './storage.js';

const NAMES: readonly AssetName[] = ['video', 'poster', 'lastFrame'];

/** Every file that the folder of a generation can hold: an earlier try may have stored one that the record does not name. */
function fileKeysIn(folder: string): string[] {
  const assets = NAMES.flatMap((name) =>
    EXTENSIONS[name === 'video' ? 'video' : 'image'].map(
      (extension) => `${assetKeyBase(folder, name)}.${extension}`,
    ),
  );
  return [manifestKey(folder), ...assets];
}

/**
 * @param folders where they may lie: by the template in force, and where the record says.
 * @throws StorageError; what is left is removed when it is called again
 */
export async function removeFiles(storage: Storage, folders: ReadonlySet<string>): Promise<void> {
  for (const folder of folders) for (const key of fileKeysIn(folder)) await storage.remove(key);
}
