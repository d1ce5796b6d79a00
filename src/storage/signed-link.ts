/**
 * Links to files on a local disk that work for a while without credentials: the HTTP server serves them. S3 signs its
 * own. The signature is an HMAC over generation, asset and expiry, so that none of them can be changed.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

export interface LinkTarget {
  readonly generationId: string;
  readonly name: string;
  /** Epoch milliseconds. */
  readonly expiresAt: number;
}

function sign(secret: string, { generationId, name, expiresAt }: LinkTarget): Buffer {
  return createHmac('sha256', secret).update(`asset-link:${generationId}:${name}:${expiresAt}`).digest();
}

/** The link itself. `secret` must not be empty. */
export function createSignedLink(publicUrl: string, secret: string, target: LinkTarget): string {
  const { generationId, name, expiresAt } = target;
  const signature = sign(secret, target).toString('base64url');
  return `${publicUrl}/files/${generationId}/${name}?expires=${expiresAt}&signature=${signature}`;
}

/** Is this link ours and still good at `now`? Constant time in the signature; false for anything else at all. */
export function isSignedLink(secret: string, target: LinkTarget, signature: string, now: number): boolean {
  if (secret === '' || !Number.isSafeInteger(target.expiresAt) || target.expiresAt <= now) return false;
  const given = createHmac('sha256', secret).update(Buffer.from(signature, 'base64url')).digest();
  const expected = createHmac('sha256', secret).update(sign(secret, target)).digest();
  return timingSafeEqual(given, expected);
}
