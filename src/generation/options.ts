/** How an app wants its generation handled: the options of `enqueue`, checked at the edge. */
import { z } from 'zod';
import { InvalidInputError, type Problem } from '../errors.js';
import { didYouMean } from './did-you-mean.js';
import { requestSchema, type GenerationRequestInput, type WrittenRequest } from './request.js';

const MAX_METADATA_BYTES = 16_384;
const MAX_DELAY_MS = 365 * 24 * 3_600_000;

const MAX_URL_LENGTH = 2048;

/** The worker that sends refuses private addresses: only its settings say which of them are allowed. */
function whyNotANotifyUrl(text: string): string | null {
  if (!URL.canParse(text)) return `an http or https URL, got ${JSON.stringify(text.slice(0, 80))}`;
  const url = new URL(text);
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    return `an http or https URL, got ${url.protocol}//`;
  return url.username || url.password ? 'a URL without user name and password' : null;
}

const name = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    // Control characters would break keys, logs and terminals; those that turn the direction of what follows, what they show.
    .regex(/^[^\p{Cc}\u202a-\u202e\u2066-\u2069]*$/u, {
      message: 'expected a text without control characters',
    });

export const optionsSchema = z
  .strictObject({
    idempotencyKey: name(255)
      .optional()
      .describe('the same key with the same request gives the same generation, per tenant'),
    tenant: name(128)
      .default('default')
      .describe('whose it is: keys, fair order, caps and budgets are per tenant'),
    priority: z.int().min(1).max(2_097_152).optional().describe('no priority comes first, then 1, 2, 3'),
    delayMs: z.int().min(0).max(MAX_DELAY_MS).optional().describe('wait this long before the submit'),
    runAt: z
      .union([z.int().min(0).max(8.64e15), z.date().transform((date) => date.getTime())])
      .optional()
      .describe('submit not before this instant (epoch milliseconds; in the library also a Date)'),
    deadlineMs: z
      .int()
      .min(1)
      .max(MAX_DELAY_MS)
      .optional()
      .describe('time limit from now; default: GENERATION_DEADLINE_MS from the provider’s acceptance'),
    metadata: z
      .record(z.string(), z.json())
      .refine((metadata) => Buffer.byteLength(JSON.stringify(metadata)) <= MAX_METADATA_BYTES, {
        message: `expected at most ${MAX_METADATA_BYTES} bytes of JSON`,
      })
      .default({})
      .describe('an object that comes back with the generation'),
    onUnconfirmed: z
      .enum(['hold', 'resubmit', 'fail'])
      .optional()
      .describe(
        'what to do when it is not known whether the submit was accepted; default UNCONFIRMED_POLICY',
      ),
    notifyUrl: z
      .string()
      .max(MAX_URL_LENGTH)
      .superRefine((text, issue) => {
        const expected = whyNotANotifyUrl(text);
        if (expected !== null) issue.addIssue({ code: 'custom', message: `expected ${expected}` });
      })
      .optional()
      .describe('where a signed POST is sent when the generation is over'),
    notifyOn: z
      .enum(['end', 'progress'])
      .optional()
      .describe('end (default): when it is over; progress: also each step and each new percentage'),
  })
  .refine((options) => options.notifyOn === undefined || options.notifyUrl !== undefined, {
    path: ['notifyOn'],
    message: 'expected notifyUrl beside it',
  })
  .refine((options) => options.delayMs === undefined || options.runAt === undefined, {
    path: ['runAt'],
    message: 'expected either delayMs or runAt, got both',
  });

export type EnqueueOptions = z.output<typeof optionsSchema>;
export type EnqueueOptionsInput = z.input<typeof optionsSchema>;

/** A request and its options, both checked. */
export interface Order {
  readonly request: WrittenRequest;
  readonly options: EnqueueOptions;
}

const REQUEST_FIELDS = Object.keys(requestSchema.shape);
const OPTION_FIELDS = Object.keys(optionsSchema.shape);

/** What an unknown field may be meant for: another spelling, or a field of the other part. */
function whatIsMeant(key: string, part: 'request' | 'options'): string {
  if (key === 'callback_url') return 'unknown field: reelhaul sets callback_url itself';
  const [own, other, otherPart] =
    part === 'request'
      ? [REQUEST_FIELDS, OPTION_FIELDS, 'options']
      : [OPTION_FIELDS, REQUEST_FIELDS, 'request'];
  if (other.includes(key)) return `unknown field: it belongs into ${otherPart}`;
  const stem = key.replace(/_?(url|uri)$/i, '');
  const meant = didYouMean(key, own) ?? didYouMean(stem, own);
  if (meant !== null) return `unknown field; did you mean ${meant}?`;
  const elsewhere = didYouMean(key, other);
  if (elsewhere !== null) return `unknown field; did you mean ${elsewhere}, in ${otherPart}?`;
  return 'unknown field; expected only the documented ones';
}

function problemsOf(error: z.ZodError, prefix: 'request' | 'options'): Problem[] {
  return error.issues.flatMap((issue): Problem[] => {
    const path = [prefix, ...issue.path].join('.');
    if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message }];
    return issue.keys.map((key) => ({
      path: `${path}.${key}`,
      message:
        issue.path.length === 0
          ? whatIsMeant(key, prefix)
          : 'unknown field; expected only the documented ones',
    }));
  });
}

/** Code that walks JSON level by level has a bounded stack. */
const MAX_DEPTH = 100;
/** More than any valid order has: metadata and options are bounded in bytes, and hold fewer values. */
const MAX_VALUES = 16_384;
/** Of the request itself, and of its options. */
const MAX_FIELDS = 100;

/** Why this JSON is too large for a schema to look at; null when it is not. Stops counting at the limits. */
function whyTooLarge(value: unknown): string | null {
  let values = 0;
  const tooDeep = (inner: unknown, levels: number): boolean => {
    values += 1;
    if (typeof inner !== 'object' || inner === null || values > MAX_VALUES) return false;
    if (levels === 0) return true;
    return Object.values(inner).some((one) => values <= MAX_VALUES && tooDeep(one, levels - 1));
  };
  if (tooDeep(value, MAX_DEPTH)) return `expected JSON of at most ${MAX_DEPTH} levels`;
  return values > MAX_VALUES ? `expected JSON of at most ${MAX_VALUES} values` : null;
}

function sizeProblems(part: unknown, prefix: string): Problem[] {
  const object = Object(part) as object;
  const problems: Problem[] = [];
  let fields = 0;
  for (const key in object) {
    if (++fields > MAX_FIELDS) return [{ path: prefix, message: `expected at most ${MAX_FIELDS} fields` }];
    const message = whyTooLarge((object as Record<string, unknown>)[key]);
    if (message !== null) problems.push({ path: `${prefix}.${key}`, message });
  }
  return problems;
}

const wellFormed = (text: string) => text.replaceAll(/\p{Cs}/gu, '\ufffd');

/** Half of a surrogate pair: half an emoji, cut by an app. Strict receivers refuse the whole body for it. */
function brokenTexts(value: unknown, path: string): Problem[] {
  if (typeof value === 'string') {
    const at = value.search(/\p{Cs}/u);
    return at < 0
      ? []
      : [{ path, message: `expected whole characters, got half of a surrogate pair at position ${at}` }];
  }
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [
    ...brokenTexts(key, `${path}.${wellFormed(key)} (its name)`),
    ...brokenTexts(inner, `${path}.${wellFormed(key)}`),
  ]);
}

/**
 * Checks what an app handed in.
 * @param now epoch milliseconds
 * @throws InvalidInputError naming every problem of both parts.
 */
export function readOrder(
  request: GenerationRequestInput,
  options: EnqueueOptionsInput | undefined,
  now: number,
): Order {
  // Input that is not two objects is left to the schemas.
  const tooLarge = [...sizeProblems(request, 'request'), ...sizeProblems(options, 'options')];
  if (tooLarge.length > 0) throw new InvalidInputError('The generation was not enqueued', tooLarge);
  const broken = [...brokenTexts(request, 'request'), ...brokenTexts(options, 'options')];
  const checked = requestSchema.safeParse(request);
  const wanted = optionsSchema.safeParse(options === undefined ? {} : options);
  const tooLate = (wanted.data?.runAt ?? 0) > now + MAX_DELAY_MS;
  if (checked.success && wanted.success && !tooLate && broken.length === 0)
    return { request: checked.data, options: wanted.data };
  throw new InvalidInputError('The generation was not enqueued', [
    ...broken,
    ...(checked.success ? [] : problemsOf(checked.error, 'request')),
    ...(wanted.success ? [] : problemsOf(wanted.error, 'options')),
    ...(tooLate ? [{ path: 'options.runAt', message: 'expected an instant within a year from now' }] : []),
  ]);
}
