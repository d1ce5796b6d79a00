/** Reads the record of a generation from its Redis hash. */
import { NewerRecordError } from '../errors.js';
import type {
  Assets,
  AssetUrls,
  Failure,
  GenerationRecord,
  NotifyOn,
  UnconfirmedPolicy,
} from '../generation/record.js';
import type { GenerationRequest, Warning } from '../generation/request.js';
import { chargeOf, otherTasks, type Submit } from '../generation/submits.js';
import type { State } from '../generation/states.js';
import { unpack } from './compression.js';

/** The version of the stored shape: nothing was released before it. */
export const RECORD_VERSION = 1;

const number = (text: string | undefined): number | null =>
  text === undefined || text === '' ? null : Number(text);
const json = <T>(text: string | undefined, fallback: T): T => (text ? (JSON.parse(text) as T) : fallback);

/**
 * Can this version be read? A record without one is of the first.
 * @throws NewerRecordError
 */
export function checkVersion(id: string, version: string | null | undefined): void {
  if (version && Number(version) > RECORD_VERSION) throw new NewerRecordError(id, version, RECORD_VERSION);
}

/** The hash of which a script returned the fields and values in turn. */
export function hashOf(list: readonly string[]): Record<string, string> {
  const hash: Record<string, string> = {};
  for (let i = 0; i + 1 < list.length; i += 2) hash[list[i]!] = list[i + 1]!;
  return hash;
}

/**
 * Reads a stored hash. Fields that an older version did not write get their meaning of then.
 * @throws NewerRecordError
 */
export function readRecord(id: string, hash: Readonly<Record<string, string>>): GenerationRecord {
  checkVersion(id, hash['v']);
  const submits = json<Submit[]>(hash['submits'], []);
  const taskId = hash['taskId'] ?? null;
  return {
    id,
    state: hash['state'] as State,
    tenant: hash['tenant'] ?? '',
    idempotencyKey: hash['idempotencyKey'] ?? null,
    request: json<GenerationRequest>(hash['request'], {} as GenerationRequest),
    metadata: json(hash['metadata'], {}),
    taskId,
    otherTaskIds: otherTasks(submits, taskId),
    submits,
    progress: number(hash['progress']),
    late: hash['late'] === '1',
    charge: chargeOf(submits),
    attempts: {
      submit: Number(hash['submitAttempts'] ?? 0),
      poll: Number(hash['pollAttempts'] ?? 0),
      archive: Number(hash['archiveAttempts'] ?? 0),
      notify: Number(hash['notifyAttempts'] ?? 0),
    },
    failure: json<Failure | null>(hash['failure'], null),
    assets: json<Assets | null>(unpack(hash['assets'] ?? ''), null),
    warnings: json<Warning[]>(hash['warnings'], []),
    createdAt: Number(hash['createdAt']),
    submittedAt: number(hash['submittedAt']),
    finishedAt: number(hash['finishedAt']),
    updatedAt: Number(hash['updatedAt']),
    deadlineAt: number(hash['deadlineAt']),
    waitsFor: hash['state'] === 'queued' && hash['waitsFor'] ? hash['waitsFor'].split(' ') : [],
    rev: Number(hash['rev'] ?? 0),
    decision: hash['decision'] ?? null,
    submitNonce: hash['submitNonce'] ?? null,
    submitFailures: Number(hash['submitFailures'] ?? 0),
    inputsCheckedAt: number(hash['inputsCheckedAt']),
    inputFailures: Number(hash['inputFailures'] ?? 0),
    acceptedAt: number(hash['acceptedAt']),
    unconfirmedAt: number(hash['unconfirmedAt']),
    onUnconfirmed: (hash['onUnconfirmed'] as UnconfirmedPolicy | undefined) ?? null,
    hintedTaskId: hash['hintedTaskId'] ?? null,
    visibleAt: number(hash['visibleAt']),
    withoutUrlSince: number(hash['withoutUrlSince']),
    urls: json<AssetUrls | null>(hash['urls'], null),
    linkRefreshed: hash['linkRefreshed'] === '1',
    archiveFailures: Number(hash['archiveFailures'] ?? 0),
    runAt: number(hash['runAt']),
    priority: Number(hash['priority'] ?? 0),
    notifyUrl: hash['notifyUrl'] ?? null,
    notifyOn: (hash['notifyOn'] as NotifyOn | undefined) ?? 'end',
    turn: number(hash['turn']),
    trail: hash['trail'] ?? '',
    polledAt: number(hash['polledAt']),
    hints: Number(hash['hints'] ?? 0),
    hintedAt: number(hash['hintedAt']),
    traceparent: hash['traceparent'] ?? null,
  };
}
