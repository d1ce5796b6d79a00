/** A client that believes nothing: one connection per call, no redirects, whatever arrived is shown as it came. */
import http from 'node:http';

export interface Seen {
  /** Null when no status line came. */
  readonly status: number | null;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
  /** The answer ended as HTTP says it must. */
  readonly complete: boolean;
  /** Code of the transport error, null without one. */
  readonly error: string | null;
}

export interface Call {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Leaves when this many bytes of the body came; for answers without an end. */
  readonly leaveAfterBytes?: number;
  /** Leaves when nothing arrived for this long, in ms; for answers that never come. */
  readonly leaveAfterMs?: number;
}

export function call(url: string, options: Call = {}): Promise<Seen> {
  return new Promise((resolve) => {
    const body = options.body === undefined ? '' : JSON.stringify(options.body);
    const pieces: Buffer[] = [];
    let answer: http.IncomingMessage | null = null;
    let error: string | null = null;
    const request = http.request(url, {
      method: options.method ?? (body === '' ? 'GET' : 'POST'),
      agent: false,
      headers: { 'Content-Type': 'application/json', Connection: 'close', ...options.headers },
    });
    if (options.leaveAfterMs !== undefined) {
      request.setTimeout(options.leaveAfterMs, () => request.destroy(new Error('left')));
    }
    request.on('response', (response) => {
      answer = response;
      response.on('data', (piece: Buffer) => {
        pieces.push(piece);
        const arrivedBytes = pieces.reduce((sum, { length }) => sum + length, 0);
        if (arrivedBytes >= (options.leaveAfterBytes ?? Infinity)) request.destroy(new Error('left'));
      });
      response.on('error', (failure: NodeJS.ErrnoException) => {
        error ??= failure.code ?? failure.message;
      });
    });
    request.on('error', (failure: NodeJS.ErrnoException) => {
      error ??= failure.code ?? failure.message;
    });
    request.on('close', () => {
      resolve({
        status: answer?.statusCode ?? null,
        headers: answer?.headers ?? {},
        body: Buffer.concat(pieces),
        complete: answer?.complete ?? false,
        error,
      });
    });
    request.end(body);
  });
}

/** JSON of an answer; the object that most tests look into. */
export function jsonOf(seen: Seen): Record<string, unknown> {
  return JSON.parse(seen.body.toString('utf8')) as Record<string, unknown>;
}

export const CALLBACK_URL = 'https://example.com/webhook';

export function submit(
  simulator: { readonly url: string },
  prompt: string,
  options: Call & { readonly callbackUrl?: string } = {},
): Promise<Seen> {
  return call(`${simulator.url}/runway/pro/generate`, {
    body: { prompt, model: 'gen4', ratio: '1280:720', callback_url: options.callbackUrl ?? CALLBACK_URL },
    ...options,
  });
}

export function poll(
  simulator: { readonly url: string },
  taskId: string | number,
  options: Call = {},
): Promise<Seen> {
  return call(`${simulator.url}/runway/feed`, { body: { task_id: taskId }, ...options });
}

/** Submits under this script and returns the task id, as the books know it. */
export async function taskUnder(
  simulator: {
    readonly url: string;
    ledger(): { readonly submits: readonly { readonly taskIds: readonly string[] }[] };
  },
  script: string,
  options: Call & { readonly callbackUrl?: string } = {},
): Promise<string> {
  const seen = await submit(
    simulator,
    `a fox [sim: duration=0${script === '' ? '' : `, ${script}`}]`,
    options,
  );
  const taskId = simulator.ledger().submits.at(-1)?.taskIds.at(-1);
  if (taskId === undefined) throw new Error(`no task: ${seen.status} ${seen.body.toString('utf8')}`);
  return taskId;
}
