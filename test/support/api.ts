/** The HTTP server over a testbed, and a way to ask it. */
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import type { Generation } from '../../src/generation/record.js';
import { startServer } from '../../src/http/server.js';
import { createHub } from '../../src/pipeline/context.js';
import { connectRedis, type RedisConnection } from '../../src/redis/connect.js';
import type { Testbed } from './testbed.js';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** The JSON of the body; null when it is none. */
  readonly body: unknown;
  readonly text: string;
}

export interface AskOptions {
  readonly token?: string;
  /** Sent as JSON; a string as it is. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export interface TestApi {
  readonly url: string;
  /** The server's own connection, to take it away. */
  readonly redis: RedisConnection;
  fetch(method: string, path: string, options?: AskOptions): Promise<Response>;
  ask(method: string, path: string, options?: AskOptions): Promise<Answer>;
  close(): Promise<void>;
}

export const generationIn = ({ body }: Answer): Generation => body as Generation;

export async function startApi(bed: Testbed, environment: Record<string, string> = {}): Promise<TestApi> {
  const config = readConfig({ ...bed.environment, PORT: '0', ...environment });
  const log = pino({ level: 'silent' });
  const redis = await connectRedis(config, 'producer', log);
  const hub = createHub({ config, log, redis });
  const server = await startServer(hub);
  const url = `http://127.0.0.1:${server.port}`;

  function ask(method: string, path: string, { token, body, headers, signal }: AskOptions = {}) {
    return fetch(url + path, {
      method,
      redirect: 'manual',
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(signal ? { signal } : {}),
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
  }

  return {
    url,
    redis,
    fetch: ask,
    async ask(method, path, options) {
      const response = await ask(method, path, options);
      const text = await response.text();
      let body: unknown = null;
      try {
        body = JSON.parse(text);
      } catch {
        // Not JSON: the text is what the test looks at.
      }
      return { status: response.status, headers: response.headers, body, text };
    },
    async close() {
      await server.close();
      await hub.queues.close();
      redis.disconnect();
    },
  };
}
