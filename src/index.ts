/** The library: what an app may import from `reelhaul`. */
export { createReelhaul, type CreateReelhaulOptions } from './reelhaul.js';
export type {
  CancelResult,
  DeadNotifications,
  Decision,
  Enqueued,
  EnqueueItem,
  EnqueueResult,
  Erased,
  EraseOptions,
  LimitsOverview,
  ListQuery,
  Outlook,
  Page,
  Reelhaul,
  Spend,
  TenantErased,
  StoredInput,
  Wait,
  WaitCode,
  WaitOptions,
} from './reelhaul.js';
export type { EventFilter, GenerationEvent } from './store/event-stream.js';
export type { Notification } from './store/outbox.js';
export {
  ConfigError,
  IdempotencyConflictError,
  InvalidInputError,
  MayBeBilledError,
  MissingPackageError,
  NewerRecordError,
  NotFoundError,
  RebillNotAllowedError,
  RedisUnusableError,
  ReelhaulError,
  StateConflictError,
  StorageError,
  WaitTimeoutError,
  WritesRefusedError,
  type Problem,
} from './errors.js';
export type { EnqueueOptionsInput as EnqueueOptions } from './generation/options.js';
export type { Asset, Assets, Charge, Failure, FailureCode, Generation } from './generation/record.js';
export type { GenerationRequest, GenerationRequestInput, Warning } from './generation/request.js';
export type { IgnoredOption } from './generation/ignored.js';
export type { State } from './generation/states.js';
