/**
 * Inputs: what the provider fetches of the pictures that a submit names, as strictly as Runway documents: https and a domain
 * name, no redirects, at most 2,048 characters and 16 MB, a whole PNG, JPEG or WebP. Only this machine and hosts that callbacks may go to by
 * name are asked, and of these plain http and addresses are taken: a local simulator does not fetch from the internet.
 */
import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import { HEAD_BYTES, sniff } from '../media/sniff.js';
import type { LedgerInput } from './ledger.js';

const TIMEOUT_MS = 10_000;
const MAX_URL_LENGTH = 2048;
const MAX_BYTES = 16_000_000;

export interface InputFetcher {
  /** Fetches it as the provider would. Never throws: what is wrong is in the entry. */
  fetch(field: LedgerInput['field'], url: string): Promise<LedgerInput>;
}

interface Fetched {
  readonly httpStatus: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly bytes: Buffer;
}

function get(url: string): Promise<Fetched> {
  return new Promise((resolve, reject) => {
    const { request } = url.startsWith('https:') ? https : http;
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const asked = request(
      url,
      { agent: false, signal, headers: { 'user-agent': 'simulator' } },
      (response) => {
        const { statusCode: httpStatus = 0, headers } = response;
        const chunks: Buffer[] = [];
        let sizeBytes = 0;
        response.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          sizeBytes += chunk.length;
          if (sizeBytes > MAX_BYTES) response.destroy(new Error(`more than ${MAX_BYTES} bytes`));
        });
        response.on('end', () => resolve({ httpStatus, headers, bytes: Buffer.concat(chunks) }));
        response.on('error', reject);
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

/** What the provider would complain of; null when it takes the answer. */
function complaintOf({ httpStatus, headers, bytes }: Fetched): string | null {
  if (httpStatus >= 300 && httpStatus < 400) return `a redirect (${httpStatus})`;
  if (httpStatus !== 200) return `HTTP ${httpStatus}`;
  if (Number(headers['content-length']) !== bytes.length) return 'no Content-Length';
  try {
    const { contentType } = sniff(bytes.subarray(0, HEAD_BYTES), 'image');
    return headers['content-type'] === contentType ? null : `the Content-Type ${headers['content-type']}`;
  } catch (error) {
    return (error as Error).message;
  }
}

/** @param mayFetchFrom is this host of ours? */
export function createInputFetcher(mayFetchFrom: (hostname: string) => boolean): InputFetcher {
  return {
    async fetch(field, url) {
      const entry = { field, url, httpStatus: null, sizeBytes: 0, sha256: null };
      const refused = (error: string): LedgerInput => ({ ...entry, error });
      if (url.length > MAX_URL_LENGTH) return refused(`more than ${MAX_URL_LENGTH} characters`);
      if (!URL.canParse(url)) return refused('no URL');
      const { protocol, hostname } = new URL(url);
      if (!mayFetchFrom(hostname)) {
        if (protocol !== 'https:') return refused('no https URL');
        return isIP(hostname.replace(/^\[|\]$/g, '')) ? refused('no domain name') : { ...entry, error: null };
      }
      try {
        const fetched = await get(url);
        const { httpStatus, bytes } = fetched;
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        return { field, url, httpStatus, sizeBytes: bytes.length, sha256, error: complaintOf(fetched) };
      } catch (error) {
        return refused((error as Error).message);
      }
    },
  };
}
