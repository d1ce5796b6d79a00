/** The operations of the API as OpenAPI describes them: parameters and problems follow from the path and from what is sent. */
import type { z } from 'zod';
import { ref, schemaOf, type Json } from './json-schema.js';
import * as wire from './schemas.js';

export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly parameters: readonly Json[];
  readonly requestBody?: Json;
  readonly responses: Readonly<Record<string, Json>>;
}

const json = (schema: Json) => ({ 'application/json': { schema } });
const BYTES = { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } };
const answer = (description: string, shape: string): Json => ({ description, content: json(ref(shape)) });
const ok = (description: string, shape: string) => ({ 200: answer(description, shape) });
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
const WITH_JSON = [400, 413, 415, 422];

const problem = (status: number) => ({
  description: PROBLEMS[status],
  content: { 'application/problem+json': { schema: ref('Problem') } },
});

const PATH_PARAMETERS: Readonly<Record<string, Json>> = {
  id: { description: 'the id of the generation', schema: { type: 'string' } },
  tenant: { description: 'the name of the tenant', schema: { type: 'string' } },
  name: { description: 'which file', schema: { type: 'string', enum: wire.ASSET_NAMES } },
};

const namesIn = (path: string): string[] => [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);

const header = (name: string, description: string): Json => ({
  name,
  in: 'header',
  required: false,
  description,
  schema: { type: 'string' },
});

function queryOf(schema: z.ZodType): Json[] {
  const { properties = {} } = schemaOf(schema) as { properties?: Record<string, Json> };
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: 'query',
    required: false,
    ...(description === undefined ? {} : { description }),
    schema,
  }));
}

/** What is particular to an operation. */
interface Particulars {
  readonly query?: z.ZodType;
  readonly headers?: readonly Json[];
  readonly requestBody?: Json;
  /** Beside those that every operation has, and those of its path, query and body. */
  readonly problems?: readonly number[];
}

type Describe = (path: string) => Operation;

const tagged =
  (tag: string) =>
  (
    operationId: string,
    summary: string,
    answers: Readonly<Record<number, Json>>,
    { query, headers = [], requestBody, problems = [] }: Particulars = {},
  ): Describe =>
  (path) => {
    const names = namesIn(path);
    const statuses = [
      ...EVERYWHERE,
      ...(names.includes('id') ? [404] : []),
      ...(query ? [422] : []),
      ...(requestBody && 'application/json' in (requestBody['content'] as Json) ? WITH_JSON : []),
      ...problems,
    ];
    return {
      operationId,
      summary,
      tags: [tag],
      parameters: [
        ...names.map((name) => ({ name, in: 'path', required: true, ...PATH_PARAMETERS[name] })),
        ...(query ? queryOf(query) : []),
        ...headers,
      ],
      ...(requestBody ? { requestBody } : {}),
      responses: { ...answers, ...Object.fromEntries(statuses.map((status) => [status, problem(status)])) },
    };
  };

const generations = tagged('generations');
const decisions = tagged('decisions');
const files = tagged('files');
const events = tagged('events');
const notifications = tagged('notifications');
const limits = tagged('limits');

const EVENT_STREAM = {
  200: {
    description: 'Server-sent events: `id` is the cursor, `event` the type, `data` an Event as JSON.',
    content: {
      'text/event-stream': {
        schema: { type: 'string', contentMediaType: 'application/json', contentSchema: ref('Event') },
      },
    },
  },
};
const LAST_EVENT_ID = header('Last-Event-ID', 'go on behind this event');

const OPERATIONS: Readonly<Record<string, Describe>> = {
  'POST /v1/generations': generations(
    'enqueue',
    'Record a generation and queue its submit',
    {
      200: answer('The idempotency key was known: the generation of then.', 'Enqueued'),
      201: answer('Recorded.', 'Generation'),
    },
    {
      headers: [header('Idempotency-Key', 'the same key with the same request gives the same generation')],
      requestBody: body({ anyOf: [ref('Order'), ref('Request')] }),
      problems: [409],
    },
  ),
  'GET /v1/generations': generations('list', 'Generations, newest first', ok('A page.', 'Page'), {
    query: wire.listQuerySchema,
  }),
  'POST /v1/inputs': generations(
    'addInput',
    'Store a picture that generations can start from: { "image": { "input": id } }',
    { 200: answer('These bytes were stored before.', 'Input'), 201: answer('Stored.', 'Input') },
    {
      query: wire.uploadQuerySchema,
      requestBody: {
        required: true,
        description: 'The bytes of a PNG, JPEG or WebP: at most 16 MB and 8,000 pixels a side.',
        content: BYTES,
      },
      problems: [413],
    },
  ),
  'POST /v1/generations/batch': generations(
    'enqueueMany',
    `Up to ${wire.MAX_BATCH} at once; each is recorded whole or not at all and has its own result`,
    ok('The results, in order.', 'BatchResult'),
    { requestBody: body(ref('Batch')) },
  ),
  'GET /v1/generations/{id}': generations('get', 'One generation', ok('The generation.', 'Generation')),
  'DELETE /v1/generations/{id}': decisions(
    'erase',
    'Erase a generation with its files; a stub with its instants and bills stays',
    ok('What stays.', 'Erased'),
    { query: wire.eraseQuerySchema, problems: [409] },
  ),
  'DELETE /v1/tenants/{tenant}': decisions(
    'eraseTenant',
    'Erase all generations of a tenant; for tokens of all tenants',
    ok('How many.', 'TenantErased'),
    { query: wire.eraseQuerySchema },
  ),
  'GET /v1/generations/{id}/answers': generations(
    'answers',
    'What the provider said that decided something',
    ok('The raw answers.', 'Answers'),
  ),
  'GET /v1/generations/{id}/outlook': generations(
    'outlook',
    'Why it waits, how many are before it, and when its task is asked about next',
    ok('As of now.', 'Outlook'),
  ),
  'POST /v1/generations/{id}/cancel': decisions(
    'cancel',
    'Stop a generation that is not over',
    ok('Canceled.', 'CancelResult'),
    { problems: [409] },
  ),
  'POST /v1/generations/{id}/retry': decisions(
    'retry',
    'Restart at the stage that failed',
    ok('The generation.', 'Generation'),
    { requestBody: body(ref('Retry'), false), problems: [409] },
  ),
  'POST /v1/generations/{id}/decision': decisions(
    'decide',
    'Settle an unconfirmed generation',
    ok('Settled.', 'Generation'),
    {
      requestBody: body(ref('Decision')),
      problems: [409],
    },
  ),
  'GET /v1/generations/{id}/assets/{name}': files(
    'asset',
    'A stored file, whole or in one range',
    {
      200: { description: 'The file.', content: BYTES },
      206: { description: 'The range of it.', content: BYTES },
      302: { description: 'The storage gives links: this one works for five minutes.' },
      304: { description: 'The file of `If-None-Match`.' },
    },
    { headers: [header('Range', 'such as bytes=0-1023')], problems: [416] },
  ),
  'GET /v1/generations/{id}/events': events(
    'eventsOfOne',
    'The events of one generation, beginning with the generation as it is',
    EVENT_STREAM,
    { query: wire.eventsQuerySchema.omit({ tenant: true }), headers: [LAST_EVENT_ID] },
  ),
  'GET /v1/events': events('events', 'Events as they happen', EVENT_STREAM, {
    query: wire.eventsQuerySchema,
    headers: [LAST_EVENT_ID],
  }),
  'GET /v1/generations/{id}/notifications': notifications(
    'notifications',
    'Notifications that are not delivered yet, or were given up',
    ok('Oldest first.', 'Notifications'),
  ),
  'POST /v1/generations/{id}/notifications/retry': notifications(
    'retryNotification',
    'Send the notifications that were given up again',
    ok('How many.', 'Retried'),
  ),
  'GET /v1/limits': limits(
    'limits',
    'Caps and rates with their use, and what holds calls to the provider',
    ok('As they stand.', 'Limits'),
  ),
  'POST /v1/limits/resume': limits(
    'resume',
    'Say that key and provider work again: nothing waits for a probe, a 429 or the next budget',
    ok('As they stand now.', 'Limits'),
  ),
  'GET /v1/spend': limits('spend', 'What was spent on a day, by tenant', ok('The spend.', 'Spend'), {
    query: wire.spendQuerySchema,
  }),
  'GET /v1/notifications/dead': notifications(
    'deadNotifications',
    'Notifications that were given up, newest generation first',
    ok('A page.', 'DeadNotifications'),
    { query: wire.deadQuerySchema },
  ),
};

/** By path and method, as an OpenAPI document has them. */
export const PATHS: Record<string, Record<string, Operation>> = {};
for (const [route, describe] of Object.entries(OPERATIONS)) {
  const [method = '', path = ''] = route.split(' ');
  (PATHS[path] ??= {})[method.toLowerCase()] = describe(path);
}
