/** Plain words for what the record says in codes: the state of a generation, what went wrong, what to do, the bill. */
import type { Charge, Failure, FailureCode } from '../../generation/record.js';
import type { State } from '../../generation/states.js';
import { MILLIONTHS } from '../../generation/price.js';

export interface StateWords {
  readonly label: string;
  readonly means: string;
}

export const STATE_WORDS: Readonly<Record<State, StateWords>> = {
  queued: { label: 'Queued', means: 'Waits for its turn to be submitted. Nothing is billed yet.' },
  submitting: { label: 'Submitting', means: 'The paid request is being sent, or its answer is awaited.' },
  unconfirmed: {
    label: 'Unconfirmed',
    means:
      'The request was sent, and its answer was lost: it is not known whether a task exists and is billed. A callback can still tell.',
  },
  generating: { label: 'Generating', means: 'The provider has accepted the task and works on it.' },
  archiving: { label: 'Archiving', means: 'The video is ready and is being stored.' },
  succeeded: { label: 'Succeeded', means: 'The video is in your storage, verified.' },
  failed: { label: 'Failed', means: 'It is over without a video.' },
  expired: {
    label: 'Expired',
    means:
      'The deadline passed before the provider was done. The task is still polled from time to time, for a day.',
  },
  canceled: { label: 'Canceled', means: 'It was canceled here. The provider has no cancel.' },
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
    todo: 'Read its message below, change the request and enqueue it again. The same request will be refused again.',
  },
  submit_attempts_exhausted: {
    what: 'The provider could not be reached in any attempt. The request was never sent.',
    todo: 'Submit it again once the provider can be reached.',
  },
  submission_unconfirmed: {
    what: 'The request was sent, but whether it was accepted is not known, and no callback came.',
    todo: 'Look in the provider’s own list of tasks. If the task is there, adopt it; else submit again.',
  },
  task_failed: {
    what: 'The provider worked on the task and failed.',
    todo: 'Read its message below. Another prompt or image may help. Submitting again is a new bill.',
  },
  task_not_found: {
    what: 'The provider accepted the task and never showed it.',
    todo: 'Retry later. If the task stays unknown, ask the provider’s support, with the task id.',
  },
  no_asset_url: {
    what: 'The provider reported success, and gave no link to a video.',
    todo: 'Retry: the link sometimes comes late. If it does not, ask the provider’s support, with the task id.',
  },
  deadline_exceeded: {
    what: 'It took longer than the deadline allows.',
    todo: 'Retry: a task that was only slow is stored as usual.',
  },
  asset_expired: {
    what: 'The link to the video expired before the video was downloaded, and the provider gave no new one.',
    todo: 'Retry: the task is polled for a new link. The provider keeps videos for about a day.',
  },
  asset_invalid: {
    what: 'What was downloaded is not a whole video.',
    todo: 'Retry: it is downloaded and checked again.',
  },
  asset_too_large: {
    what: 'The video is larger than ARCHIVE_MAX_BYTES allows.',
    todo: 'Raise ARCHIVE_MAX_BYTES, then retry.',
  },
  asset_forbidden: {
    what: 'The link to the video leads to a host or address that is not allowed.',
    todo: 'If the host is right, add it to ARCHIVE_ALLOW_HOSTS, then retry.',
  },
  archive_attempts_exhausted: {
    what: 'The video could not be stored in any attempt.',
    todo: 'Check that the storage can be written and the host of the video can be reached, then retry.',
  },
  budget_exceeded: {
    what: 'Its price would have exceeded the budget, so it was not submitted.',
    todo: 'Raise the budget or wait for the next one, then retry.',
  },
  input_unusable: {
    what: 'A picture that it starts from cannot be used. Nothing was submitted.',
    todo: 'Put it right where it lies, or enqueue the generation anew with another one. Then a retry checks it again.',
  },
  price_unknown: {
    what: 'There is a budget, and no price is known for this model, so it was not submitted.',
    todo: 'Add the model to PRICES, then retry.',
  },
};

/** For a code of a newer version. */
const UNKNOWN_ADVICE: Advice = {
  what: 'It failed with a code that this version does not know.',
  todo: 'Read the message, and the provider’s answers below.',
};

/** Its code is about the request itself, or unknown: another try would likely be only another bill. */
const HOPELESS: Advice = {
  what: 'The provider failed the task, and by its code another try would not help: usually it is the prompt or the image.',
  todo: 'Read its message below, change the request and enqueue it again. The same request may fail again, and be billed again.',
};

/** What happened, and what an operator can do about it. */
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
