/**
 * The balance of the account, as the vendor's query service tells it. The key stands in the address there, so that this
 * wants a key of its own without any quota, and no message from here ever holds the address.
 */
import { create, isAxiosError } from 'axios';
import { z } from 'zod';

const TIMEOUT_MS = 10_000;
const MAX_BODY_BYTES = 64 * 1024;

const amount = z.union([z.number(), z.string().transform(Number)]).pipe(z.number());
const answer = z.object({ total_quota: amount, total_used_quota: amount });

/** In the vendor's own units. */
export interface Quota {
  readonly left: number;
  readonly used: number;
}

export type QuotaResult = { readonly quota: Quota } | { readonly problem: string };

/** Asks for the balance. Never throws; the problem names neither address nor key. */
export async function readQuota(baseUrl: string, key: string): Promise<QuotaResult> {
  try {
    const { status, data } = await create().request<unknown>({
      adapter: 'http',
      url: `${baseUrl}/user/quota`,
      params: { key },
      timeout: TIMEOUT_MS,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      maxContentLength: MAX_BODY_BYTES,
      maxRedirects: 0,
      proxy: false,
      validateStatus: () => true,
    });
    const parsed = answer.safeParse(data);
    if (status !== 200) return { problem: `HTTP ${status}` };
    if (!parsed.success) return { problem: 'the answer has no total_quota and total_used_quota' };
    return { quota: { left: parsed.data.total_quota, used: parsed.data.total_used_quota } };
  } catch (error) {
    const code = isAxiosError(error) ? error.code : undefined;
    // The signal ran out: axios says only that the call was canceled.
    if (code === 'ERR_CANCELED') return { problem: `no answer within ${TIMEOUT_MS / 1000} s` };
    return { problem: code ?? 'no answer' };
  }
}
