/**
 * The unguessable address at which the provider fetches an input that is no public URL. Its token names generation and field
 * and proves itself by an HMAC, so a guess costs no look into Redis. Whether it is still good, the record says.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { InputField } from '../generation/inputs.js';

export interface InputTarget {
  readonly generationId: string;
  readonly field: InputField;
}

const TOKEN = /^([\w-]{43})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(image|last_image)$/;

const mac = (secret: string, { generationId, field }: InputTarget): string =>
  createHmac('sha256', secret).update(`input:${generationId}:${field}`).digest('base64url');

/** `secret` must not be empty. */
export const inputLink = (publicUrl: string, secret: string, target: InputTarget): string =>
  `${publicUrl}/inputs/${mac(secret, target)}-${target.generationId}-${target.field}`;

/** What the token is for; null when it is none of ours. Constant time in what proves it. */
export function readInputToken(secrets: readonly string[], token: string): InputTarget | null {
  const [, proof = '', generationId = '', field = ''] = TOKEN.exec(token) ?? [];
  if (proof === '') return null;
  const target = { generationId, field: field as InputField };
  const good = secrets.some((secret) =>
    timingSafeEqual(Buffer.from(mac(secret, target)), Buffer.from(proof)),
  );
  return good ? target : null;
}
