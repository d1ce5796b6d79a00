/** The OpenAPI 3.1 document, made from the schemas that check what comes in: the two cannot say different things. */
import { z } from 'zod';
import { optionsSchema } from '../generation/options.js';
import { requestSchema } from '../generation/request.js';
import * as wire from './schemas.js';

type Json = Record<string, unknown>;

export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly parameters: readonly Json[];
  readonly requestBody?: Json;
  readonly responses: Readonly<Record<string, Json>>;
}

export interface OpenApiDocument {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string } & Json;
  readonly servers: readonly { readonly url: string }[];
  readonly security: readonly Json[];
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Json>>; readonly securitySchemes: Json };
}

/** Any JSON value is written as a recursive schema of its own; `{}` says the same. Dates do not travel as JSON. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.filter((one) => !isDate(one)).map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const object = value as Json;
  if (typeof object['$ref'] === 'string' && object['$ref'].startsWith('#/$defs/')) return {};
  const entries = Object.entries(object)
    .filter(([key]) => key !== '$schema' && key !== '$defs' && key !== 'propertyNames')
    .map(([key, inner]) => [key, plain(inner)] as const);
  const kept = Object.fromEntries(entries);
  const [only, ...more] = Array.isArray(kept['anyOf']) ? (kept['anyOf'] as Json[]) : [];
  if (only === undefined || more.length > 0) return kept;
  const { anyOf: _, ...rest } = kept;
  return { ...only, ...rest };
}

const isDate = (value: unknown) => typeof value === 'object' && value !== null && 'x-date' in value;

function schemaOf(schema: z.ZodType, io: 'input' | 'output' = 'output'): Json {
  const made = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema }) {
      if (zodSchema._zod.def.type === 'date') Object.assign(jsonSchema, { 'x-date': true });
    },
  });
  return plain(made) as Json;
}

const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: Json) => ({ 'application/json': { schema } });
const answers = (description: string, schema: Json): Json => ({ description, content: json(schema) });
const binary = (description: string): Json => ({
  description,
  content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } },
});
const body = (schema: Json, required = true): Json => ({ required, content: json(schema) });

const PROBLEMS: Readonly<Record<number, string>> = {
  400: 'The body is not JSON.',
  401: 'No token, or an unknown one.',
  403: 'The token may not do this.',
  404: 'There is no such generation for this caller.',
  409: 'It does not fit: the state, an idempotency key of a different request, or a bill that was not accepted.',
  413: 'The body is too large.',
  415: 'The body is not said to be JSON.',
  416: 'The file has no such range.',
  422: 'Fields are wrong; `problems` names every one.',
  429: 'Too many requests (`rate_limited`), queued generations (`queue_full`) or streams (`too_many_streams`); `Retry-After` says when to go on.',
  500: 'An error of reelhaul itself; its log has the details.',
  503: 'Redis cannot be reached or takes no writes (`Retry-After` says when to ask again), the storage cannot be reached, or too many streams are open.',
  504: 'It took too long.',
};
const EVERYWHERE = [401, 403, 429, 500, 503, 504];
const WITH_BODY = [400, 413, 415, 422];

function problems(...own: number[]): Record<string, Json> {
  const statuses = [...new Set([...EVERYWHERE, ...own])].sort((a, b) => a - b);
  return Object.fromEntries(
    statuses.map((status) => [
      String(status),
      {
        description: PROBLEMS[status],
        content: { 'application/problem+json': { schema: ref('Problem') } },
      },
    ]),
  );
}

const pathId: Json = {
  name: 'id',
  in: 'path',
  required: true,
  description: 'the id of the generation',
  schema: { type: 'string' },
};
const header = (name: string, description: string): Json => ({
  name,
  in: 'header',
  required: false,
  description,
  schema: { type: 'string' },
});

function queryOf(schema: z.ZodType): Json[] {
  const { properties = {} } = schemaOf(schema, 'output') as { properties?: Record<string, Json> };
  return Object.entries(properties).map(([name, { description, ...inner }]) => ({
    name,
    in: 'query',
    required: false,
    ...(description === undefined ? {} : { description }),
    schema: inner,
  }));
}

function paths(): OpenApiDocument['paths'] {
  const generation = ref('Generation');
  const eventStream = {
    description: 'Server-sent events: `id` is the cursor, `event` the type, `data` an Event as JSON.',
    content: {
      'text/event-stream': {
        schema: { type: 'string', contentMediaType: 'application/json', contentSchema: ref('Event') },
      },
    },
  };
  const list = [...queryOf(wire.listQuerySchema)];
  const lastEventId = header('Last-Event-ID', 'go on behind this event');
  return {
    '/v1/generations': {
      post: {
        operationId: 'enqueue',
        summary: 'Record a generation and queue its submit',
        tags: ['generations'],
        parameters: [
          header('Idempotency-Key', 'the same key with the same request gives the same generation'),
        ],
        requestBody: body({ anyOf: [ref('Order'), ref('Request')] }),
        responses: {
          '200': answers('The idempotency key was known: the generation of then.', ref('Enqueued')),
          '201': answers('Recorded.', generation),
          ...problems(409, ...WITH_BODY),
        },
      },
      get: {
        operationId: 'list',
        summary: 'Generations, newest first',
        tags: ['generations'],
        parameters: list,
        responses: { '200': answers('A page.', ref('Page')), ...problems(422) },
      },
    },
    '/v1/inputs': {
      post: {
        operationId: 'addInput',
        summary: 'Store a picture that generations can start from: { "image": { "input": id } }',
        tags: ['generations'],
        parameters: queryOf(wire.uploadQuerySchema),
        requestBody: {
          required: true,
          description: 'The bytes of a PNG, JPEG or WebP: at most 16 MB and 8,000 pixels a side.',
          content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } },
        },
        responses: {
          '200': answers('These bytes were stored before.', ref('Input')),
          '201': answers('Stored.', ref('Input')),
          ...problems(413, 422),
        },
      },
    },
    '/v1/generations/batch': {
      post: {
        operationId: 'enqueueMany',
        summary: `Up to ${wire.MAX_BATCH} at once; each is recorded whole or not at all and has its own result`,
        tags: ['generations'],
        parameters: [],
        requestBody: body(ref('Batch')),
        responses: {
          '200': answers('The results, in order.', ref('BatchResult')),
          ...problems(...WITH_BODY),
        },
      },
    },
    '/v1/generations/{id}': {
      get: {
        operationId: 'get',
        summary: 'One generation',
        tags: ['generations'],
        parameters: [pathId],
        responses: { '200': answers('The generation.', generation), ...problems(404) },
      },
      delete: {
        operationId: 'erase',
        summary: 'Erase a generation with its files; a stub with its instants and bills stays',
        tags: ['decisions'],
        parameters: [pathId, ...queryOf(wire.eraseQuerySchema)],
        responses: { '200': answers('What stays.', ref('Erased')), ...problems(404, 409, 422) },
      },
    },
    '/v1/tenants/{tenant}': {
      delete: {
        operationId: 'eraseTenant',
        summary: 'Erase all generations of a tenant; for tokens of all tenants',
        tags: ['decisions'],
        parameters: [
          {
            name: 'tenant',
            in: 'path',
            required: true,
            description: 'the name of the tenant',
            schema: { type: 'string' },
          },
          ...queryOf(wire.eraseQuerySchema),
        ],
        responses: { '200': answers('How many.', ref('TenantErased')), ...problems(422) },
      },
    },
    '/v1/generations/{id}/answers': {
      get: {
        operationId: 'answers',
        summary: 'What the provider said that decided something',
        tags: ['generations'],
        parameters: [pathId],
        responses: { '200': answers('The raw answers.', ref('Answers')), ...problems(404) },
      },
    },
    '/v1/generations/{id}/outlook': {
      get: {
        operationId: 'outlook',
        summary: 'Why it waits, how many are before it, and when its task is asked about next',
        tags: ['generations'],
        parameters: [pathId],
        responses: { '200': answers('As of now.', ref('Outlook')), ...problems(404) },
      },
    },
    '/v1/generations/{id}/cancel': {
      post: {
        operationId: 'cancel',
        summary: 'Stop a generation that is not over',
        tags: ['decisions'],
        parameters: [pathId],
        responses: { '200': answers('Canceled.', ref('CancelResult')), ...problems(404, 409) },
      },
    },
    '/v1/generations/{id}/retry': {
      post: {
        operationId: 'retry',
        summary: 'Restart at the stage that failed',
        tags: ['decisions'],
        parameters: [pathId],
        requestBody: body(ref('Retry'), false),
        responses: { '200': answers('The generation.', generation), ...problems(404, 409, ...WITH_BODY) },
      },
    },
    '/v1/generations/{id}/decision': {
      post: {
        operationId: 'decide',
        summary: 'Settle an unconfirmed generation',
        tags: ['decisions'],
        parameters: [pathId],
        requestBody: body(ref('Decision')),
        responses: { '200': answers('Settled.', generation), ...problems(404, 409, ...WITH_BODY) },
      },
    },
    '/v1/generations/{id}/assets/{name}': {
      get: {
        operationId: 'asset',
        summary: 'A stored file, whole or in one range',
        tags: ['files'],
        parameters: [
          pathId,
          {
            name: 'name',
            in: 'path',
            required: true,
            description: 'which file',
            schema: { type: 'string', enum: wire.ASSET_NAMES },
          },
          header('Range', 'such as bytes=0-1023'),
        ],
        responses: {
          '200': binary('The file.'),
          '206': binary('The range of it.'),
          '302': { description: 'The storage gives links: this one works for five minutes.' },
          '304': { description: 'The file of `If-None-Match`.' },
          ...problems(404, 416),
        },
      },
    },
    '/v1/generations/{id}/events': {
      get: {
        operationId: 'eventsOfOne',
        summary: 'The events of one generation, beginning with the generation as it is',
        tags: ['events'],
        parameters: [pathId, ...queryOf(wire.eventsQuerySchema.omit({ tenant: true })), lastEventId],
        responses: { '200': eventStream, ...problems(404, 422) },
      },
    },
    '/v1/events': {
      get: {
        operationId: 'events',
        summary: 'Events as they happen',
        tags: ['events'],
        parameters: [...queryOf(wire.eventsQuerySchema), lastEventId],
        responses: { '200': eventStream, ...problems(422) },
      },
    },
    '/v1/generations/{id}/notifications': {
      get: {
        operationId: 'notifications',
        summary: 'Notifications that are not delivered yet, or were given up',
        tags: ['notifications'],
        parameters: [pathId],
        responses: { '200': answers('Oldest first.', ref('Notifications')), ...problems(404) },
      },
    },
    '/v1/generations/{id}/notifications/retry': {
      post: {
        operationId: 'retryNotification',
        summary: 'Send the notifications that were given up again',
        tags: ['notifications'],
        parameters: [pathId],
        responses: { '200': answers('How many.', ref('Retried')), ...problems(404) },
      },
    },
    '/v1/limits': {
      get: {
        operationId: 'limits',
        summary: 'Caps and rates with their use, and what holds calls to the provider',
        tags: ['limits'],
        parameters: [],
        responses: { '200': answers('As they stand.', ref('Limits')), ...problems() },
      },
    },
    '/v1/limits/resume': {
      post: {
        operationId: 'resume',
        summary: 'Say that key and provider work again: nothing waits for a probe, a 429 or the next budget',
        tags: ['limits'],
        parameters: [],
        responses: { '200': answers('As they stand now.', ref('Limits')), ...problems() },
      },
    },
    '/v1/spend': {
      get: {
        operationId: 'spend',
        summary: 'What was spent on a day, by tenant',
        tags: ['limits'],
        parameters: queryOf(wire.spendQuerySchema),
        responses: { '200': answers('The spend.', ref('Spend')), ...problems(422) },
      },
    },
    '/v1/notifications/dead': {
      get: {
        operationId: 'deadNotifications',
        summary: 'Notifications that were given up, newest generation first',
        tags: ['notifications'],
        parameters: queryOf(wire.deadQuerySchema),
        responses: { '200': answers('A page.', ref('DeadNotifications')), ...problems(422) },
      },
    },
  };
}

/** Of the API, not of the package: it changes when callers have to. */
const API_VERSION = '1.0.0';

export function createOpenApiDocument(url = '/'): OpenApiDocument {
  const order = schemaOf(optionsSchema, 'input') as { properties: Json };
  return {
    openapi: '3.1.0',
    info: {
      title: 'reelhaul',
      version: API_VERSION,
      description:
        'Enqueue video generations; each is submitted once, followed, and its video saved in your own storage. ' +
        'Every answer that is not a success is a problem document.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url }],
    security: [{ token: [] }],
    tags: [
      { name: 'generations', description: 'Requested videos' },
      { name: 'decisions', description: 'Decisions about one' },
      { name: 'files', description: 'Finished files' },
      { name: 'events', description: 'Events as they happen' },
      { name: 'notifications', description: 'What apps are told' },
      { name: 'limits', description: 'What the key may do, and what it has spent' },
    ],
    paths: paths(),
    components: {
      schemas: {
        Request: schemaOf(requestSchema, 'input'),
        Order: {
          ...order,
          properties: { request: ref('Request'), ...order.properties },
          required: ['request'],
        },
        Batch: schemaOf(wire.batchSchema, 'input'),
        Retry: schemaOf(wire.retrySchema, 'input'),
        Decision: schemaOf(wire.decisionSchema, 'input'),
        Generation: schemaOf(wire.generationSchema),
        Enqueued: schemaOf(wire.enqueuedSchema),
        Page: schemaOf(wire.pageSchema),
        BatchResult: schemaOf(wire.batchResultSchema),
        Input: schemaOf(wire.storedInputSchema),
        CancelResult: schemaOf(wire.cancelResultSchema),
        Outlook: schemaOf(wire.outlookSchema),
        Erased: schemaOf(wire.erasedSchema),
        TenantErased: schemaOf(wire.tenantErasedSchema),
        Answers: schemaOf(wire.answersSchema),
        Event: schemaOf(wire.eventSchema),
        Notifications: schemaOf(wire.notificationsSchema),
        DeadNotifications: schemaOf(wire.deadNotificationsSchema),
        Retried: schemaOf(wire.retriedSchema),
        Limits: schemaOf(wire.limitsSchema),
        Spend: schemaOf(wire.spendSchema),
        Problem: schemaOf(wire.problemSchema),
      },
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'One of API_TOKENS; not needed where none is set.',
        },
      },
    },
  };
}
