/** The client of a server that speaks S3: its settings, its clock, and how a signal stops its bytes. */
import { PutObjectCommand, S3Client, UploadPartCommand } from '@aws-sdk/client-s3';
import type { S3StorageOptions } from './s3-options.js';

const CONNECT_TIMEOUT_MS = 10_000;
/** Longest silence of the server during a request; a part of a few MB takes seconds. */
const IDLE_TIMEOUT_MS = 60_000;
/** A request with a part of a file: 5 MiB in that time are 17 kB a second. */
const PART_TIMEOUT_MS = 300_000;

export function createClient(options: S3StorageOptions): S3Client {
  const { endpoint, region } = options;
  const checksums = (options.checksums ?? endpoint === undefined) ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED';
  return new S3Client({
    // Servers of one's own rarely have regions, but every signature has one.
    ...(region === undefined ? (endpoint === undefined ? {} : { region: 'us-east-1' }) : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    forcePathStyle: options.forcePathStyle ?? false,
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      // A connection that closes without an answer or an error (101) ends nothing but this.
      requestTimeout: options.requestTimeoutMs ?? IDLE_TIMEOUT_MS,
      throwOnRequestTimeout: true,
    },
  });
}

/** The server's clock as its last answer told it, epoch ms: ages are told by the clock that wrote the dates. */
export function watchServerTime(client: S3Client): () => number {
  let latest = Date.now();
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      const { headers } = result.response as { headers?: Record<string, string> };
      const at = Date.parse(headers?.['date'] ?? '');
      latest = Number.isNaN(at) ? Date.now() : at;
      return result;
    },
    { step: 'deserialize', name: 'reelhaulServerTime' },
  );
  return () => latest;
}

/**
 * The client, with its bytes stopped by the signal. The uploader's own abort only stops waiting: it would leave the parts
 * that are on their way, and then clean up before they have arrived. What begins and ends an upload is let through: an
 * upload whose id never came back could not be cleaned up, and one that was completed is no longer abandoned.
 */
export function abortedBy(signal: AbortSignal, client: S3Client): S3Client {
  const send = (command: Parameters<S3Client['send']>[0]): Promise<unknown> => {
    const carriesBytes = command instanceof UploadPartCommand || command instanceof PutObjectCommand;
    return client.send(command, carriesBytes ? { abortSignal: signal, requestTimeout: PART_TIMEOUT_MS } : {});
  };
  return Object.create(client, { send: { value: send } }) as S3Client;
}
