/** Bodies of requests: bounded, JSON only, and read before anything is done. */
import type { Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { z } from 'zod';
import { InvalidInputError } from '../errors.js';
import { HttpError, isAbandoned } from './problems.js';

/** One generation; its parts have tighter limits of their own. */
export const MAX_BODY_BYTES = 256 * 1024;
/** Whatever is no order: decisions, and forms. */
export const MAX_SMALL_BYTES = 16 * 1024;
export const MAX_BATCH_BYTES = 16 * 1024 * 1024;

export function atMost(maxSize: number) {
  return bodyLimit({
    maxSize,
    onError: () => {
      // The rest of the body is not read: the connection cannot be used again.
      throw new HttpError(413, 'body_too_large', `Expected a body of at most ${maxSize} bytes.`, {
        connection: 'close',
      });
    },
  });
}

/** The text of a body of JSON. Only `application/json` is taken, which a web page of another origin cannot send unasked. */
export async function readJsonText(c: Context): Promise<string> {
  const text = await c.req.text();
  const type = c.req.header('content-type') ?? '';
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type))
    throw new HttpError(415, 'not_json', 'Expected Content-Type: application/json.');
  return text;
}

/**
 * The JSON of the body.
 * @param ifEmpty what an empty body means; without it an empty body is an error.
 */
export async function readJson(c: Context, ifEmpty?: unknown): Promise<unknown> {
  if (ifEmpty !== undefined && (await c.req.text()) === '') return ifEmpty;
  const text = await readJsonText(c);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new HttpError(400, 'malformed_json', 'Expected a body that is JSON.');
  }
}

/** The fields of a form; of one that was sent several times, all. */
export async function readForm(c: Context): Promise<Record<string, unknown>> {
  try {
    return await c.req.parseBody({ all: true });
  } catch (error) {
    if (isAbandoned(c)) throw error;
    throw new HttpError(400, 'malformed_form', 'Expected a body that is a form.');
  }
}

/** Fields that were not given are not there, rather than undefined. */
type Given<T> = T extends object ? { [K in keyof T]: Exclude<T[K], undefined> } : T;

/**
 * Checks an object against a schema.
 * @throws InvalidInputError naming every bad field.
 */
export function check<T extends z.ZodType<object>>(
  schema: T,
  value: unknown,
  what: string,
): Given<z.output<T>> {
  const result = schema.safeParse(value);
  if (result.success) {
    const given = Object.entries(result.data).filter(([, field]) => field !== undefined);
    return Object.fromEntries(given) as Given<z.output<T>>;
  }
  throw new InvalidInputError(
    what,
    result.error.issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((key) => ({ path: [...issue.path, key].join('.'), message: 'unknown field' }))
        : [{ path: issue.path.join('.'), message: issue.message }],
    ),
  );
}
