/**
 * What a poll's answer says about the course of a task: what to write down of it, what the schedule goes by, and what is
 * learnt at its end. Pure. Ages count from acceptance, in milliseconds; the provider's clock is only compared with itself.
 */
import type { PollOutcome, Timing } from '../provider/outcomes.js';
import { writeMark, type Followed } from './poll-state.js';
import type { Course } from './observation.js';
import type { FieldPatch } from '../generation/record.js';
import { markOf, type Sighting } from './schedule.js';

/** A submit that took longer leaves open when the provider took the task: its ages are not ours then. */
const SUBMITTED_WITHIN_MS = 5000;
/** A start that lies between two polls further apart is not known. */
const START_KNOWN_WITHIN_MS = 60_000;

export function ageOf({ acceptedAt, createdAt }: Followed, at: number): number {
  return Math.max(0, at - (acceptedAt ?? createdAt));
}

/** What the provider's own ages are worth as ours; null when nothing. */
function toldAge({ submittedAt, acceptedAt }: Followed, afterMs: number | null): number | null {
  const quick =
    submittedAt !== null && acceptedAt !== null && acceptedAt - submittedAt <= SUBMITTED_WITHIN_MS;
  return quick ? afterMs : null;
}

/** When the last poll before this one began that told something of the task; null when there was none at all. */
const lastSeen = ({ seenAt, polledAt }: Followed): number | null => seenAt ?? polledAt;

/** When the work began: as told, or between a poll that found it queued, or acceptance, and this one. */
function startedAgeOf(
  followed: Followed,
  { startedAfterMs }: Timing,
  running: boolean,
  ageMs: number,
): number | null {
  const told = toldAge(followed, startedAfterMs);
  if (told !== null && told <= ageMs) return told;
  if (!running || followed.startedAge !== null) return followed.startedAge;
  const lastSeenAt = lastSeen(followed);
  if (lastSeenAt !== null && !followed.waiting) return null;
  const notBefore = lastSeenAt === null ? 0 : ageOf(followed, lastSeenAt);
  return ageMs - notBefore <= START_KNOWN_WITHIN_MS ? Math.round((notBefore + ageMs) / 2) : null;
}

export interface News {
  /** Fields that changed; empty when the answer says nothing new. */
  readonly set: FieldPatch;
  readonly seen: Sighting;
}

/** Reads an answer that found the task unfinished, `at` epoch ms. */
export function readNews(followed: Followed, outcome: PollOutcome, at: number): News {
  const ageMs = ageOf(followed, at);
  const hintedAgoMs = followed.hintedAt === null ? null : Math.max(0, at - followed.hintedAt);
  if (outcome.kind !== 'pending') {
    const { waiting: queued, startedAge: startedAgeMs, mark } = followed;
    // One that was not answered, or not about the task, does not tell that it went on until then.
    const isBlind = outcome.kind === 'unavailable' || outcome.kind === 'misconfigured';
    const set =
      isBlind && followed.seenAt === null
        ? { seenAt: followed.polledAt ?? followed.acceptedAt ?? followed.createdAt }
        : {};
    return { set, seen: { ageMs, queued, startedAgeMs, mark, timesTold: false, hintedAgoMs } };
  }
  const { progress, queued, running, timing } = outcome;
  const startedAgeMs = startedAgeOf(followed, timing, running, ageMs);
  const mark = markOf(followed.mark, progress, ageMs);
  const set = {
    ...(followed.visibleAt === null ? { visibleAt: at } : {}),
    ...(progress !== null && progress !== followed.progress ? { progress } : {}),
    ...(mark !== null && mark !== followed.mark ? { mark: writeMark(mark) } : {}),
    ...(startedAgeMs !== null && followed.startedAge === null ? { startedAge: startedAgeMs } : {}),
    ...(queued !== followed.waiting ? { waiting: queued ? '1' : null } : {}),
    ...(followed.seenAt === null ? {} : { seenAt: null }),
  };
  const timesTold = timing.startedAfterMs !== null;
  return { set, seen: { ageMs, queued, startedAgeMs, mark, timesTold, hintedAgoMs } };
}

/** The whole course of a task whose end, or whose being given up, was seen `at` epoch ms. */
export function courseOf(followed: Followed, timing: Timing, at: number): Course {
  const { hintedAt, startedAge, waiting, mark } = followed;
  const lastSeenAt = lastSeen(followed);
  return {
    ageMs: ageOf(followed, at),
    lastPollAgeMs: lastSeenAt === null ? 0 : ageOf(followed, lastSeenAt),
    // A callback comes when the task is over, so that it tells the end as well.
    toldEndAgeMs:
      toldAge(followed, timing.endedAfterMs) ?? (hintedAt === null ? null : ageOf(followed, hintedAt)),
    startedAgeMs: toldAge(followed, timing.startedAfterMs) ?? startedAge,
    wasQueued: waiting,
    mark,
  };
}
