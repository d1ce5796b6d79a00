/**
 * What goes over the wire, as zod schemas: they check what comes in, and `/openapi.json` is made from them. What comes
 * out is typed by the library; the check at the end keeps the two the same.
 */
import { z } from 'zod';
import { ID } from '../generation/id.js';
import type { Generation } from '../generation/record.js';
import { requestSchema } from '../generation/request.js';
import { STATES } from '../generation/states.js';

export const MAX_BATCH = 1000;

const instant = z.int().describe('epoch milliseconds');
export const isGenerationId = (text: string): boolean => ID.test(text);

export const ASSET_NAMES = ['video', 'poster', 'lastFrame'] as const;

const asset = z.object({
  key: z.string(),
  sizeBytes: z.int(),
  sha256: z.string(),
  contentType: z.string(),
});
const charge = z.enum(['none', 'possible', 'charged', 'refunded']).describe('what is known of the bill');
const stage = z.enum(['submit', 'poll', 'archive', 'notify']);
const message = z.object({ code: z.string(), message: z.string() });

export const generationSchema = z.object({
  id: z.string().regex(ID),
  state: z.enum(STATES),
  tenant: z.string(),
  idempotencyKey: z.string().nullable(),
  request: requestSchema,
  metadata: z.record(z.string(), z.unknown()),
  taskId: z.string().nullable().describe('the provider’s task'),
  otherTaskIds: z.array(z.string()).describe('further tasks: each may be a bill of its own'),
  progress: z.number().nullable().describe('percent'),
  late: z.boolean().describe('the video came after the deadline'),
  charge,
  attempts: z.object({ submit: z.int(), poll: z.int(), archive: z.int(), notify: z.int() }),
  failure: z
    .object({ code: z.string(), message: z.string(), stage, retryable: z.boolean(), charge })
    .nullable(),
  assets: z.object({ video: asset, poster: asset.nullable(), lastFrame: asset.nullable() }).nullable(),
  warnings: z.array(message),
  createdAt: instant,
  submittedAt: instant.nullable(),
  finishedAt: instant.nullable(),
  updatedAt: instant,
  deadlineAt: instant.nullable(),
  waitsFor: z
    .array(z.string())
    .describe('queued until these generations are over: it starts from an asset of theirs'),
});

export const storedInputSchema = z.object({
  id: z.string().describe('goes into a request: {"image": {"input": id}}'),
  sizeBytes: z.int(),
  sha256: z.string(),
  contentType: z.string(),
  width: z.int().describe('pixels'),
  height: z.int(),
});
export const uploadQuerySchema = z.strictObject({
  tenant: z.string().min(1).max(128).optional().describe('whose requests may use it; default: default'),
});

export const enqueuedSchema = generationSchema.extend({
  ignored: z
    .array(z.string())
    .optional()
    .describe('the idempotency key was known: these options differ from the ones of then, which stay'),
});

const count = z.int().min(0);
const breakerSchema = z.object({
  openAt: instant.nullable().describe('since when calls are stopped'),
  probes: count,
  probeAt: instant.nullable(),
});
const limit = z.number().nullable().describe('null: no limit');

export const limitsSchema = z.object({
  inFlight: count.describe('tasks that live at the provider, or may, or are about to'),
  maxInFlight: limit,
  inLine: count.describe('queued, and their time has come'),
  scheduled: count.describe('queued, and waiting for their time'),
  overBudget: count.describe('queued, and waiting for the next day’s budget'),
  chained: count.describe('queued, and waiting for another generation to end'),
  capped: count.describe('queued, and their tenant has as many in flight as it may have'),
  tenantsCapped: count,
  published: z.boolean().describe('a worker has written the limits'),
  inForce: z
    .object({
      maxInFlight: limit,
      tenantMaxInFlight: limit,
      rateMax: limit,
      rateWindowMs: z.number(),
      budgetPerDay: limit,
      tenantBudgetPerDay: limit,
      tenants: z.record(
        z.string(),
        z.object({
          weight: z.number().optional(),
          maxInFlight: z.number().optional(),
          budgetPerDay: z.number().optional(),
        }),
      ),
    })
    .nullable(),
  refused: z.boolean().describe('the provider refuses the key or its quota'),
  misrouted: z.boolean().describe('something in front of the API answers submits'),
  holdMs: z.object({ submit: z.number(), poll: z.number() }),
  nextPollAt: instant.nullable().describe('when the next of all polls is due'),
  slowedTo: z.number().nullable().describe('calls per second after a 429'),
  breaker: z.object({ submit: breakerSchema, poll: breakerSchema }),
});

const spent = {
  charged: z.number().describe('billed, in the currency of PRICES'),
  possible: z.number().describe('may have been billed'),
  budget: limit,
};
export const spendSchema = z.object({
  day: z.string().describe('UTC'),
  ...spent,
  tenants: z.array(z.object({ tenant: z.string(), ...spent })),
});
export const spendQuerySchema = z.strictObject({
  day: z.iso.date().optional().describe('UTC; default: today'),
  tenant: z.string().min(1).max(128).optional(),
});

export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.string().describe('stable; decide by it'),
  detail: z.string(),
  problems: z
    .array(z.object({ path: z.string(), message: z.string() }))
    .optional()
    .describe('every bad field'),
});

export const pageSchema = z.object({
  generations: z.array(generationSchema),
  cursor: z.string().nullable().describe('for the next page; null when there is none'),
});

export const batchSchema = z.strictObject({
  items: z.array(z.unknown()).min(1).max(MAX_BATCH).describe('each as the body of POST /v1/generations'),
});

export const batchResultSchema = z.object({
  results: z.array(
    z.union([
      z.object({ status: z.literal([200, 201]), generation: enqueuedSchema }),
      z.object({ status: z.int(), problem: problemSchema }),
    ]),
  ),
});

const wholeNumber = (max: number) => z.coerce.number().pipe(z.int().min(0).max(max));
const text = (max: number) => z.string().min(1).max(max);

export const listQuerySchema = z.strictObject({
  state: z.enum(STATES).optional().describe('“unconfirmed”: those that need a decision'),
  tenant: text(128).optional(),
  createdAfter: wholeNumber(8.64e15).optional().describe('epoch milliseconds, inclusive'),
  createdBefore: wholeNumber(8.64e15).optional().describe('epoch milliseconds, exclusive'),
  limit: z.coerce.number().pipe(z.int().min(1).max(500)).optional().describe('default 50'),
  cursor: z.string().regex(ID, 'expected the cursor of a page').optional(),
});

export const deadQuerySchema = z.strictObject({
  limit: z.coerce.number().pipe(z.int().min(1).max(500)).optional().describe('generations; default 50'),
  cursor: z.string().regex(ID, 'expected the cursor of a page').optional(),
});

export const eventsQuerySchema = z.strictObject({
  tenant: text(128).optional(),
  cursor: text(64).optional().describe('as Last-Event-ID, for clients that cannot set headers'),
});

export const retrySchema = z.strictObject({
  allowRebill: z.boolean().optional().describe('accept that it may be billed a second time'),
});

export const decisionSchema = z.union(
  [
    z.strictObject({ adopt: text(512).describe('this is its task: follow it') }),
    z.strictObject({ resubmit: z.literal(true).describe('submit again; it may be billed twice') }),
    z.strictObject({ giveUp: z.literal(true).describe('fail it; a late callback still revives it') }),
  ],
  { error: 'expected {"adopt": "<taskId>"}, {"resubmit": true} or {"giveUp": true}' },
);

export const cancelResultSchema = z.object({
  generation: generationSchema,
  mayBeBilled: z.boolean().describe('the provider knows no cancel: its task may be billed all the same'),
});

export const outlookSchema = z.object({
  generationId: z.string().regex(ID),
  waitsBecause: z
    .object({
      code: z.string().describe('stable; docs/limits.md lists them'),
      message: z.string(),
      untilAt: instant.nullable().describe('null: not known'),
    })
    .nullable(),
  ahead: count.nullable().describe('how many jobs are before its own'),
  nextPollAt: instant.nullable().describe('when the provider is asked about its task next'),
});

export const eraseQuerySchema = z.strictObject({
  evenIfBilled: z
    .enum(['true', 'false'])
    .transform((text) => text === 'true')
    .optional()
    .describe('also what may still be billed: a later bill is not noticed'),
});

export const erasedSchema = z.object({
  id: z.string().regex(ID),
  state: z.enum(STATES).describe('where it was when it was erased'),
  charge,
  bills: z.array(
    z.object({
      at: instant,
      bill: z.enum(['possible', 'charged', 'refunded', 'none']),
      amount: z.number().nullable().describe('in the currency of PRICES; null: not known'),
    }),
  ),
  createdAt: instant,
  submittedAt: instant.nullable(),
  finishedAt: instant.nullable(),
  erasedAt: instant,
  filesErased: z.boolean().describe('false: a worker still has files to remove'),
});

export const tenantErasedSchema = z.object({
  erased: count.describe('generations'),
  kept: count.describe('generations that may still be billed'),
});

export const eventSchema = z.object({
  cursor: z.string(),
  generationId: z.string(),
  tenant: z.string(),
  type: z.string(),
  from: z.enum(STATES).nullable(),
  to: z.enum(STATES).nullable(),
  text: z.string().nullable(),
  at: instant,
});

export const answersSchema = z.object({
  answers: z.array(z.record(z.string(), z.unknown())).describe('what the provider said, oldest first'),
});

export const notificationsSchema = z.object({
  notifications: z.array(
    z.object({
      id: z.string().describe('the webhook-id'),
      generationId: z.string(),
      type: z.string(),
      url: z.string(),
      at: instant,
      attempts: z.int(),
      nextAttemptAt: instant.nullable(),
      lastError: z.string().nullable(),
      dead: z.boolean(),
    }),
  ),
});

export const deadNotificationsSchema = notificationsSchema.extend({
  generations: z.int().describe('of how many generations there are some'),
  cursor: z.string().nullable(),
});

export const retriedSchema = z.object({ retried: z.int().describe('how many are sent again') });

type Shown = z.output<typeof generationSchema>;
/** Compiles only while the schema shows every field of a generation and no other. */
export type SameShape = [keyof Generation] extends [keyof Shown]
  ? [keyof Shown] extends [keyof Generation]
    ? true
    : never
  : never;
