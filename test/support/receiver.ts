/** An app that is to be notified: keeps what it gets, and answers as it is told. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import type { Generation } from '../../src/generation/record.js';

export const SECRET = `whsec_${Buffer.from('a secret for the tests, 32 bytes').toString('base64')}`;

export interface Received {
  readonly headers: IncomingHttpHeaders;
  readonly id: string;
  readonly body: { readonly type: string; readonly timestamp: string; readonly data: Generation };
}

export interface Receiver {
  readonly url: string;
  /** What came, oldest first; a signature that is not right is an error. */
  readonly received: readonly Received[];
  /** What to answer to the next ones, in this order; then 204. */
  answer(...answers: { status: number; headers?: Record<string, string> }[]): void;
  close(): Promise<void>;
}

export async function startReceiver(secret = SECRET): Promise<Receiver> {
  const received: Received[] = [];
  const answers: { status: number; headers?: Record<string, string> }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const raw = Buffer.concat(chunks).toString();
      const headers = request.headers as Record<string, string>;
      try {
        const body = new Webhook(secret).verify(raw, headers) as Received['body'];
        received.push({ headers: request.headers, id: headers['webhook-id']!, body });
      } catch {
        response.writeHead(400).end();
        return;
      }
      const { status, headers: extra } = answers.shift() ?? { status: 204 };
      response.writeHead(status, extra).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    received,
    answer: (...next) => void answers.push(...next),
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
