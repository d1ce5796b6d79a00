/**
 * Why an asset could not be fetched: a closed set of kinds, each with its own remedy. Decide by `kind`, never by the
 * message. The kinds follow the section "Assets" of `docs/provider.md`.
 *
 * | kind | what it means | what helps |
 * |---|---|---|
 * | `gone` | the link answered 403, 404 or 410 | the same or a fresh link, a few times |
 * | `forbiddenHost` | its scheme, host or address may not be fetched | an entry in `ARCHIVE_ALLOW_HOSTS` |
 * | `tooLarge` | more bytes than `ARCHIVE_MAX_BYTES` | a higher limit |
 * | `unavailable` | no whole answer: network, time-out, 429, 5xx | the same again, later |
 * | `invalid` | whole bytes came, but they are not the asset | the same again, a few times |
 */
import { ReelhaulError } from '../errors.js';

export type AssetErrorKind = 'gone' | 'forbiddenHost' | 'tooLarge' | 'unavailable' | 'invalid';

/** The stable codes; four of them are also failure codes of a generation. */
const CODES: Readonly<Record<AssetErrorKind, string>> = {
  gone: 'asset_expired',
  forbiddenHost: 'asset_forbidden',
  tooLarge: 'asset_too_large',
  unavailable: 'asset_unavailable',
  invalid: 'asset_invalid',
};

export interface AssetErrorDetails {
  /** HTTP status of the answer; null when none came. */
  readonly httpStatus?: number | null;
  /** What `Retry-After` asked for, in milliseconds; null when it said nothing. */
  readonly retryAfterMs?: number | null;
  /** What only the operator may read, such as an internal address. */
  readonly detail?: string;
  readonly cause?: unknown;
}

/** An asset could not be fetched or is not what it should be. */
export class AssetError extends ReelhaulError {
  readonly kind: AssetErrorKind;
  readonly httpStatus: number | null;
  readonly retryAfterMs: number | null;
  readonly detail: string | null;

  constructor(kind: AssetErrorKind, message: string, details: AssetErrorDetails = {}) {
    super(CODES[kind], message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.httpStatus = details.httpStatus ?? null;
    this.retryAfterMs = details.retryAfterMs ?? null;
    this.detail = details.detail ?? null;
  }
}
