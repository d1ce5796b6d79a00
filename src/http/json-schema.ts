/** A zod schema as the JSON schema of an OpenAPI 3.1 document. */
import { z } from 'zod';

export type Json = Record<string, unknown>;

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

export function schemaOf(schema: z.ZodType, io: 'input' | 'output' = 'output'): Json {
  const made = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema }) {
      if (zodSchema._zod.def.type === 'date') Object.assign(jsonSchema, { 'x-date': true });
    },
  });
  return plain(made) as Json;
}

export const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
