/**
 * Inputs that come as bytes: they go to the storage, verified, before a generation names them, and a record holds only the
 * reference. What was stored for an enqueue that failed is removed; what a crash leaves, the sweep removes.
 */
import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { InvalidInputError, type Problem } from '../errors.js';
import { bytesInDataUrl, INPUT_FIELDS, type Input, type WrittenInput } from '../generation/inputs.js';
import { optionsSchema, type Order } from '../generation/options.js';
import type { GenerationRequest, WrittenRequest } from '../generation/request.js';
import { stillPicture, verifyPicture } from '../media/still.js';
import { AssetError } from '../outbound/asset-error.js';
import { assertKey, inputKey, libraryFolder } from '../storage/paths.js';
import type { StoredInput } from '../store/inputs.js';
import type { Hub } from './context.js';

export interface AddedInput {
  readonly input: StoredInput;
  /** False: the tenant had an upload with these bytes. */
  readonly isNew: boolean;
}

/**
 * Stores a picture for requests of this tenant.
 * @throws AssetError when it is none, or too large; StorageError; what the source errors with
 */
export async function addInput(hub: Hub, tenant: string, source: Readable): Promise<AddedInput> {
  const id = randomUUID();
  const verified = verifyPicture(source, null);
  try {
    const { contentType } = await verified.type;
    const storage = await hub.openedStorage();
    await hub.inputs.announce(id);
    const stored = await storage.put(inputKey(id), verified.stream, { contentType });
    const { width, height } = stillPicture(verified);
    const { sizeBytes, sha256 } = stored;
    const input = { id, sizeBytes, sha256, contentType, width, height };
    const known = await hub.inputs.register(tenant, input);
    if (known !== id) await discard(hub, id);
    return { input: { ...input, id: known }, isNew: known === id };
  } catch (error) {
    // What cannot be removed now is announced: the sweep finds it.
    await discard(hub, id).catch(() => {});
    throw error;
  } finally {
    verified.stream.destroy();
  }
}

/** The same for callers that are told what is wrong. @throws InvalidInputError when it is none, or too large; StorageError */
export async function addPicture(hub: Hub, tenant: string, source: Readable): Promise<AddedInput> {
  const named = optionsSchema.shape.tenant.safeParse(tenant);
  const refuse = (path: string, message: string) =>
    new InvalidInputError('The input was not stored', [{ path, message }]);
  try {
    if (!named.success) throw refuse('tenant', named.error.issues[0]?.message ?? 'expected a name');
    return await addInput(hub, tenant, source);
  } catch (error) {
    throw error instanceof AssetError ? refuse('input', error.message) : error;
  } finally {
    source.destroy();
  }
}

/** Removes an upload that no generation names. */
export async function discard(hub: Hub, id: string): Promise<boolean> {
  const dropped = await hub.inputs.drop(id);
  if (dropped) {
    await (await hub.openedStorage()).remove(inputKey(id));
    await hub.inputs.removed(id);
  }
  return dropped;
}

/** An order whose inputs are as a record keeps them. */
export interface PreparedOrder {
  readonly request: GenerationRequest;
  /** What the app asked for, with uploads in place of bytes: the same order looks the same the next time. */
  readonly asWritten: WrittenRequest;
  /** Uploads that were made for it. */
  readonly added: readonly string[];
}

/** @throws InvalidInputError naming every problem; StorageError. Nothing is left behind then. */
export async function prepareInputs(hub: Hub, { request, options }: Order): Promise<PreparedOrder> {
  const { tenant } = options;
  const added: string[] = [];
  const problems: Problem[] = [];
  const prepared: Record<string, Input> = {};
  const written: Record<string, WrittenInput> = {};
  try {
    for (const field of INPUT_FIELDS) {
      const input = request[field];
      if (input === undefined) continue;
      try {
        const upload = typeof input === 'string' ? await uploadOf(hub, tenant, input) : null;
        if (upload?.isNew) added.push(upload.input.id);
        written[field] = upload ? { input: upload.input.id } : input;
        prepared[field] = await resolve(hub, tenant, written[field]);
      } catch (error) {
        if (error instanceof InvalidInputError) problems.push(...error.problems);
        else if (error instanceof AssetError) problems.push({ path: '', message: error.message });
        else throw error;
        problems.push({ ...problems.pop()!, path: `request.${field}` });
      }
    }
    if (problems.length > 0) throw new InvalidInputError('The generation was not enqueued', problems);
  } catch (error) {
    await discardAll(hub, added);
    throw error;
  }
  const asWritten = { ...request, ...written };
  return { asWritten, request: { ...asWritten, ...prepared } as GenerationRequest, added };
}

/** Best effort: the sweep removes what stays. */
export async function discardAll(hub: Hub, ids: readonly string[]): Promise<void> {
  for (const id of ids) await discard(hub, id).catch(() => {});
}

const expected = (message: string): InvalidInputError =>
  new InvalidInputError('The input cannot be used', [{ path: '', message: `expected ${message}` }]);

/** The upload of a data URL; null for any other. */
async function uploadOf(hub: Hub, tenant: string, url: string): Promise<AddedInput | null> {
  const bytes = bytesInDataUrl(url);
  if (bytes === null) return null;
  checkPublicUrl(hub);
  const known = await hub.inputs.find(tenant, createHash('sha256').update(bytes).digest('hex'));
  return known ? { input: known, isNew: false } : addInput(hub, tenant, Readable.from([bytes]));
}

function checkPublicUrl({ config }: Hub): void {
  if (config.PUBLIC_URL === '')
    throw expected('an https URL: the provider fetches any other input from PUBLIC_URL, which is not set');
}

/** @throws InvalidInputError */
async function resolve(hub: Hub, tenant: string, input: WrittenInput): Promise<Input> {
  if (typeof input === 'string') return input;
  checkPublicUrl(hub);
  if ('storageKey' in input) checkLibraryKey(tenant, input.storageKey);
  if (!('generationKey' in input)) return input;
  const { generationKey, asset } = input;
  const generation = await hub.store.idOfKey(tenant, generationKey);
  if (generation === null)
    throw expected(
      `the idempotency key of a generation that was enqueued before, got ${JSON.stringify(generationKey.slice(0, 80))}`,
    );
  return { generation, asset };
}

/** Only below the folder of its tenant: other files may be of others. */
function checkLibraryKey(tenant: string, key: string): void {
  const folder = libraryFolder(tenant);
  if (folder === null) throw expected('a tenant whose name is of letters, digits and _ @ + - alone');
  if (!key.startsWith(folder) || key.length === folder.length)
    throw expected(`a key that begins with ${folder}, or for a file of a generation its id and asset`);
  assertKey(key);
}
