/** Plain words for what the record says in codes: where a generation is, what went wrong, what to do, who pays. */
import type { Charge, Failure, FailureCode } from '../../generation/record.js';
import type { State } from '../../generation/states.js';
import { MILLIONTHS } from '../../generation/price.js';

export interface StateWords {
  readonly label: string;
  readonly means: string;
}

export const STATE_WORDS: Readonly<Record<State, StateWords>> = {
  queued: { label: 'Queued', means: 'Waits for its turn to be submitted. Nothing is billed yet.' },
  submitting: { label: 'Submitting', means: 'The paid request is on its way, or its answer is.' },
  unconfirmed: {
    label: 'Unconfirmed',
    means:
      'The request was sent and its answer was lost: nobody knows whether a task exists and is billed. A callback may still tell.',
  },
  generating: { label: 'Generating', means: 'The provider has accepted the task and works on it.' },
  archiving: { label: 'Archiving', means: 'The video is ready and on its way into your storage.' },
  succeeded: { label: 'Succeeded', means: 'The video is in your storage, verified.' },
  failed: { label: 'Failed', means: 'It is over without a video.' },
  expired: {
    label: 'Expired',
    means: 'Our patience ended before the provider was done. It is still asked now and then, for a day.',
  },
  canceled: { label: 'Canceled', means: 'Somebody stopped it here. The provider knows no cancel.' },
};

export const CHARGE_WORDS: Readonly<Record<Charge, string>> = {
  none: 'Not billed',
  possible: 'Possibly billed',
  charged: 'Billed',
  refunded: 'Refunded',
};

export interface Advice {
  readonly what: string;
  readonly todo: string;
}

const ADVICE: Readonly<Record<FailureCode, Advice>> = {
  request_rejected: {
    what: 'The provider refused the request before doing any work.',
    todo: 'Read its words below, change the request and enqueue it anew. The same request will be refused again.',
  },
  submit_attempts_exhausted: {
    what: 'The provider could not be reached for so long that we gave up. The request was never sent.',
    todo: 'When the provider can be reached again, submit it again.',
  },
  submission_unconfirmed: {
    what: 'The request was sent, but whether it was accepted is not known, and no callback came.',
    todo: 'Look in the provider’s own list of tasks. If the task is there, adopt it; else submit again.',
  },
  task_failed: {
    what: 'The provider worked on the task and failed.',
    todo: 'Read its words below. Another prompt or image may help; to generate again is a new bill.',
  },
  task_not_found: {
    what: 'The provider accepted the task and then never knew it.',
    todo: 'Ask it again later. If the task stays unknown, take it up with the provider, naming the task id.',
  },
  no_asset_url: {
    what: 'The provider said that the task succeeded, and gave no video.',
    todo: 'Ask it again; the link sometimes comes late. If it does not, take it up with the provider.',
  },
  deadline_exceeded: {
    what: 'It took longer than the deadline allows.',
    todo: 'Ask the provider again: a task that was only slow is taken up as if nothing had been.',
  },
  asset_expired: {
    what: 'The link to the video had died before the video was fetched, and no fresh one could be had.',
    todo: 'Retry: the task is asked for a fresh link. Providers keep videos for about a day.',
  },
  asset_invalid: {
    what: 'What was downloaded is not a whole video.',
    todo: 'Retry: it is downloaded and checked anew.',
  },
  asset_too_large: {
    what: 'The video is larger than ARCHIVE_MAX_BYTES allows.',
    todo: 'Raise ARCHIVE_MAX_BYTES, then retry.',
  },
  asset_forbidden: {
    what: 'The link to the video leads to a host or address that may not be fetched.',
    todo: 'If the host is right, add it to ARCHIVE_ALLOW_HOSTS, then retry.',
  },
  archive_attempts_exhausted: {
    what: 'The video could not be brought into the storage in all its tries.',
    todo: 'Look whether the storage can be written and the provider’s host be reached, then retry.',
  },
  budget_exceeded: {
    what: 'Its price would have gone beyond the budget, so it was not submitted.',
    todo: 'Raise the budget or wait for the next one, then retry.',
  },
  price_unknown: {
    what: 'There is a budget, and no price is known for this model, so it was not submitted.',
    todo: 'Give the model a price, then retry.',
  },
};

/** For a code of a newer version. */
const UNKNOWN_ADVICE: Advice = {
  what: 'It failed in a way this dashboard has no words for.',
  todo: 'Read the message, and the provider’s words below.',
};

/** Its code is of the request itself, or known to nobody: another try of the same would likely be only another bill. */
const HOPELESS: Advice = {
  what: 'The provider failed the task, and by its code another try would not help: usually it is the prompt or the image.',
  todo: 'Read its words below, change the request and enqueue it anew. The same request may fail again, and be billed again.',
};

/** What happened, and what somebody can do about it. */
export function adviceOn({ code, retryable }: Failure): Advice {
  if (code === 'task_failed' && !retryable) return HOPELESS;
  return Object.hasOwn(ADVICE, code) ? ADVICE[code] : UNKNOWN_ADVICE;
}

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB'];

/** Decimal units, as shops and storage bills count. */
export function sizeText(sizeBytes: number): string {
  const power = sizeBytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(sizeBytes) / 3));
  const value = sizeBytes / 1000 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`;
}

/** Two units at most, so that it can be read in passing. */
export function durationText(durationMs: number): string {
  const ms = Math.max(0, Math.round(durationMs));
  if (ms < 1000) return `${ms} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const steps = [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ] as const;
  let left = Math.round(seconds);
  const parts: string[] = [];
  for (const [unit, size] of steps) {
    const n = Math.floor(left / size);
    left -= n * size;
    if (n > 0 || parts.length > 0) parts.push(n > 0 ? `${n} ${unit}` : '');
    if (parts.length === 2) break;
  }
  return parts.filter((part) => part !== '').join(' ');
}

/** In the currency of the price table. */
export const moneyText = (amount: number): string =>
  amount.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** Of whole millionths, as records hold it. */
export const priceText = (millionths: number): string => moneyText(millionths / MILLIONTHS);

export const countText = (n: number): string => n.toLocaleString('en');
