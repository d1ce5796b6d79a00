/**
 * A real S3 server on loopback for tests: s3rver, in front of which stands what it lacks, done as AWS documents it: listing
 * and aborting multipart uploads, and `If-None-Match: *`. It also plays the faults of a server: it can refuse, break off
 * and be down.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { access, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import S3rver from 's3rver';

export const BUCKET = 'reels';
/** What s3rver knows. */
export const CREDENTIALS = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' };

/** Answers in place of the server; null lets the request through. */
export type Fault = (
  request: IncomingMessage,
) => { status: number; code: string } | 'hangUp' | 'silence' | 'switch' | null;

export interface S3Server {
  readonly endpoint: string;
  /** Keys of objects, and `upload of <key>` for unfinished multipart uploads. */
  readonly everything: () => Promise<string[]>;
  /** Requests seen so far, as `METHOD /path?query`. */
  readonly requests: readonly string[];
  readonly headersOf: (pattern: RegExp) => IncomingMessage['headers'] | null;
  setFault(fault: Fault | null): void;
  /** False: `If-None-Match` is ignored, as some servers do. */
  setConditional(honoured: boolean): void;
  close(): Promise<void>;
}

const UPLOADS = '._S3rver_uploads';
const OBJECT = '._S3rver_object';

export async function startS3Server(): Promise<S3Server> {
  const directory = await mkdtemp(join(tmpdir(), 'reelhaul-s3-'));
  const s3rver = new S3rver({
    directory,
    silent: true,
    configureBuckets: [{ name: BUCKET }],
    vhostBuckets: false,
  });
  await s3rver.configureBuckets();
  const serve = s3rver.callback();
  const seen: { line: string; headers: IncomingMessage['headers'] }[] = [];
  let fault: Fault | null = null;
  let conditional = true;
  /** Conditional writes one after the other, so that the look and the writing are one step. */
  let writes: Promise<void> = Promise.resolve();

  const bucketDirectory = join(directory, BUCKET);

  async function uploads(): Promise<{ id: string; key: string; initiated: Date }[]> {
    const ids = await readdir(join(bucketDirectory, UPLOADS)).catch(() => []);
    const found = await Promise.all(
      ids.map(async (id) => ({
        id,
        key: await readFile(join(bucketDirectory, UPLOADS, id, 'key'), 'utf8').catch(() => ''),
        initiated: (await stat(join(bucketDirectory, UPLOADS, id))).birthtime,
      })),
    );
    return found.filter(({ key }) => key !== '').sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  async function listUploads(query: URLSearchParams, response: ServerResponse): Promise<void> {
    // Pages of one, so that the paging of the caller is exercised.
    const prefix = query.get('prefix') ?? '';
    const after = [query.get('key-marker') ?? '', query.get('upload-id-marker') ?? ''];
    const left = (await uploads())
      .filter(({ key }) => key.startsWith(prefix))
      .filter(({ key, id }) => key > after[0]! || (key === after[0] && id > after[1]!));
    const page = left.slice(0, 1);
    const next = page.at(-1);
    response.setHeader('Content-Type', 'application/xml');
    response.end(
      `<?xml version="1.0" encoding="UTF-8"?><ListMultipartUploadsResult><Bucket>${BUCKET}</Bucket>` +
        `<IsTruncated>${left.length > page.length}</IsTruncated>` +
        (next
          ? `<NextKeyMarker>${next.key}</NextKeyMarker><NextUploadIdMarker>${next.id}</NextUploadIdMarker>`
          : '') +
        page
          .map(
            ({ id, key, initiated }) =>
              `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${initiated.toISOString()}</Initiated></Upload>`,
          )
          .join('') +
        '</ListMultipartUploadsResult>',
    );
  }

  async function abortUpload(id: string, response: ServerResponse): Promise<void> {
    const isThere = (await uploads()).some((upload) => upload.id === id);
    if (!isThere) {
      refuse(response, 404, 'NoSuchUpload');
      return;
    }
    await rm(join(bucketDirectory, UPLOADS, id), { recursive: true });
    response.statusCode = 204;
    response.end();
  }

  /** As AWS: looked at when an object is put or an upload completed, not before. */
  function writeOnce(request: IncomingMessage, response: ServerResponse, key: string): void {
    writes = writes.then(async () => {
      const taken = await access(join(bucketDirectory, `${key}${OBJECT}`)).then(
        () => true,
        () => false,
      );
      if (taken) {
        request.resume();
        refuse(response, 412, 'PreconditionFailed');
        return;
      }
      const ended = new Promise<void>((resolve) => {
        response.once('close', resolve);
      });
      serve(request, response);
      await ended;
    });
  }

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const { method = '' } = request;
    seen.push({ line: `${method} ${request.url}`, headers: request.headers });
    const trouble = fault?.(request) ?? null;
    if (trouble === 'hangUp') {
      request.socket.destroy();
      return;
    }
    if (trouble === 'silence') return;
    if (trouble === 'switch') {
      request.socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n');
      return;
    }
    if (trouble !== null) {
      request.resume();
      refuse(response, trouble.status, trouble.code);
      return;
    }
    const key = decodeURIComponent(url.pathname.slice(`/${BUCKET}/`.length));
    const uploadId = url.searchParams.get('uploadId');
    if (method === 'GET' && url.searchParams.has('uploads')) {
      void listUploads(url.searchParams, response);
    } else if (method === 'DELETE' && uploadId !== null) {
      void abortUpload(uploadId, response);
    } else if (conditional && request.headers['if-none-match'] === '*') {
      writeOnce(request, response, key);
    } else {
      serve(request, response);
    }
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });

  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    everything: async () => {
      const files = await readdir(bucketDirectory, { recursive: true });
      const objects = files
        .filter((file) => file.endsWith(OBJECT))
        .map((file) => file.slice(0, -OBJECT.length));
      return [...objects.sort(), ...(await uploads()).map(({ key }) => `upload of ${key}`)];
    },
    get requests() {
      return seen.map(({ line }) => line);
    },
    headersOf: (pattern) => seen.find(({ line }) => pattern.test(line))?.headers ?? null,
    setFault: (next) => {
      fault = next;
    },
    setConditional: (honoured) => {
      conditional = honoured;
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'application/xml');
  response.end(
    `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`,
  );
}
