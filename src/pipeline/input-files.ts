/** The files in our storage that a generation starts from, and where the provider fetches them. */
import { inputsOf, type Input, type InputField } from '../generation/inputs.js';
import type { GenerationRecord } from '../generation/record.js';
import { isTerminal } from '../generation/states.js';
import { inputLink } from '../provider/input-link.js';
import { inputKey } from '../storage/paths.js';
import type { Hub } from './context.js';

export interface InputFile {
  readonly key: string;
  /** Null of a file that was put there by others: its first bytes tell. */
  readonly contentType: string | null;
  readonly sha256: string | null;
}

/** What an input comes to now. */
export type FoundInput =
  | { readonly kind: 'file'; readonly file: InputFile }
  /** The generation that it comes from is not over. */
  | { readonly kind: 'awaited'; readonly generationId: string }
  /** There is none, and there will be none. */
  | { readonly kind: 'none'; readonly why: string };

const none = (why: string): FoundInput => ({ kind: 'none', why });

/** Finds the file of an input that is no URL. */
export async function findInput(
  { store, inputs }: Pick<Hub, 'store' | 'inputs'>,
  { tenant }: Pick<GenerationRecord, 'tenant'>,
  input: Exclude<Input, string>,
): Promise<FoundInput> {
  if ('storageKey' in input)
    return { kind: 'file', file: { key: input.storageKey, contentType: null, sha256: null } };
  if ('input' in input) {
    const upload = await inputs.get(tenant, input.input);
    if (upload === null) return none(`There is no upload ${input.input}.`);
    const { contentType, sha256 } = upload;
    return { kind: 'file', file: { key: inputKey(input.input), contentType, sha256 } };
  }
  const before = await store.get(input.generation);
  if (before?.tenant !== tenant) return none(`Generation ${input.generation} is not there any more.`);
  const { id, state, assets } = before;
  if (!isTerminal(state)) return { kind: 'awaited', generationId: id };
  const file = assets?.[input.asset];
  if (state !== 'succeeded') return none(`Generation ${id} ended as ${state}.`);
  return file ? { kind: 'file', file } : none(`Generation ${id} has no ${input.asset}.`);
}

/** The address of each input that is no URL. */
export function inputLinks(
  { PUBLIC_URL, CALLBACK_SECRET }: Pick<Hub['config'], 'PUBLIC_URL' | 'CALLBACK_SECRET'>,
  { id: generationId, request }: Pick<GenerationRecord, 'id' | 'request'>,
): { readonly [field in InputField]?: string } {
  return Object.fromEntries(
    inputsOf(request).flatMap(({ field, input }) =>
      typeof input === 'string'
        ? []
        : [[field, inputLink(PUBLIC_URL, CALLBACK_SECRET[0] ?? '', { generationId, field })]],
    ),
  );
}
