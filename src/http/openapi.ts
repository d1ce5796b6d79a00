/** The OpenAPI 3.1 document, made from the schemas that check what comes in: the two cannot say different things. */
import { optionsSchema } from '../generation/options.js';
import { requestSchema } from '../generation/request.js';
import { ref, schemaOf, type Json } from './json-schema.js';
import { PATHS, type Operation } from './operations.js';
import * as wire from './schemas.js';

export interface OpenApiDocument {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string } & Json;
  readonly servers: readonly { readonly url: string }[];
  readonly security: readonly Json[];
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Json>>; readonly securitySchemes: Json };
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
    paths: PATHS,
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
