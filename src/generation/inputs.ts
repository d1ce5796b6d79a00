/**
 * The pictures that a request starts from or ends with. An app may write one in several forms; a record keeps three of them:
 * an https URL, which the provider fetches itself, bytes in our storage, or the picture that another generation ends with.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { ID } from './id.js';

/** Runway's rules for inputs: https, a domain name, at most 2,048 characters, at most 16 MB. (The rest cannot be seen from a URL.) */
const MAX_URL_LENGTH = 2048;
export const MAX_INPUT_BYTES = 16_000_000;
/** Of a picture, in pixels. */
export const MAX_INPUT_SIDE = 8000;

export const INPUT_FIELDS = ['image', 'last_image'] as const;
export type InputField = (typeof INPUT_FIELDS)[number];

/** Assets of a generation that are pictures. */
export const PICTURE_ASSETS = ['lastFrame', 'poster'] as const;
export type PictureAsset = (typeof PICTURE_ASSETS)[number];

/** Base64 of the largest input, and the words before it. */
const MAX_DATA_URL_LENGTH = Math.ceil(MAX_INPUT_BYTES / 3) * 4 + 100;
const DATA_URL = /^data:image\/[\w.+-]+;base64,/i;

function whyNotAnInputUrl(text: string): string | null {
  if (/^data:/i.test(text)) return whyNotADataUrl(text);
  if (text.length > MAX_URL_LENGTH)
    return `a URL of at most ${MAX_URL_LENGTH} characters, got ${text.length}`;
  if (!URL.canParse(text)) return `an https URL, got ${JSON.stringify(text.slice(0, 80))}`;
  const url = new URL(text);
  if (url.protocol !== 'https:') return `an https URL, got ${url.protocol}//`;
  if (url.username || url.password) return 'a URL without user name and password';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(host)) return `a URL with a domain name, got the address ${host}`;
  if (!host.includes('.')) return `a URL with a public domain name, got ${host}`;
  return null;
}

function whyNotADataUrl(text: string): string | null {
  if (!DATA_URL.test(text))
    return `data:image/…;base64, before the bytes, got ${JSON.stringify(text.slice(0, 40))}`;
  return text.length > MAX_DATA_URL_LENGTH ? `a picture of at most ${MAX_INPUT_BYTES} bytes` : null;
}

/** The bytes of a data URL; null for any other text. */
export function bytesInDataUrl(text: string): Buffer | null {
  const [head] = DATA_URL.exec(text) ?? [];
  return head === undefined ? null : Buffer.from(text.slice(head.length), 'base64');
}

const asset = z.enum(PICTURE_ASSETS, { error: 'expected lastFrame or poster' });
const id = z.string().regex(ID, { error: 'expected an id' });

export const inputSchema = z
  .union(
    [
      z.string().superRefine((text, issue) => {
        const expected = whyNotAnInputUrl(text);
        if (expected !== null) issue.addIssue({ code: 'custom', message: `expected ${expected}` });
      }),
      z.strictObject({ input: id.describe('of an upload: the answer of POST /v1/inputs') }),
      z.strictObject({
        storageKey: z.string().min(1).max(900).describe('a file below library/<tenant>/ in the storage'),
      }),
      z.strictObject({ generation: id.describe('it waits for this one'), asset }),
      z.strictObject({
        generationKey: z
          .string()
          .min(1)
          .max(255)
          .describe('the idempotency key of a generation that was enqueued before, also in the same batch'),
        asset,
      }),
    ],
    {
      error:
        'expected an https URL, a data URL, {"input": id}, {"storageKey": key}, {"generation": id, "asset": "lastFrame"} or {"generationKey": key, "asset": "lastFrame"}',
    },
  )
  .describe('a picture, in one of these forms (docs/inputs.md)');

/** As an app writes it. */
export type WrittenInput = z.output<typeof inputSchema>;
/** As a record keeps it: nothing is left to look up. */
export type Input =
  | string
  | { readonly input: string }
  | { readonly storageKey: string }
  | { readonly generation: string; readonly asset: PictureAsset };

type WithInputs<T> = { readonly [field in InputField]?: T | undefined };

/** The inputs of a request, by their fields. */
export function inputsOf<T>(request: WithInputs<T>): { readonly field: InputField; readonly input: T }[] {
  return INPUT_FIELDS.flatMap((field) => {
    const input = request[field];
    return input === undefined ? [] : [{ field, input }];
  });
}

/** The generations that this one starts from, each once. */
export function generationsBefore(request: WithInputs<Input>): string[] {
  const ids = inputsOf(request).flatMap(({ input }) =>
    typeof input === 'object' && 'generation' in input ? [input.generation] : [],
  );
  return [...new Set(ids)];
}

/** The uploads that it uses, each once. */
export function uploadsIn(request: WithInputs<Input>): string[] {
  const ids = inputsOf(request).flatMap(({ input }) =>
    typeof input === 'object' && 'input' in input ? [input.input] : [],
  );
  return [...new Set(ids)];
}
