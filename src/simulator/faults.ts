/**
 * Random faults: each is a name for a piece of script. A rate is its probability; seed and prompt alone decide whether it
 * applies. A generation gets at most one fault of each slot, and a
 * directive that the generation brings itself always wins.
 */
import { ReelhaulError } from '../errors.js';
import { roll } from './dice.js';
import { parseScript } from './script.js';
import { type ScriptPart } from './script-fields.js';

interface Fault {
  /** Faults of one slot exclude each other. */
  readonly slot: 'submit' | 'pace' | 'shape' | 'poll' | 'result' | 'video' | 'poster' | 'callback';
  readonly script: string;
}

/** Every random fault. All of them leave the generation a way to end. */
export const FAULT_SCRIPTS = {
  // A task was created, its answer is lost.
  'submit-reset-after': { slot: 'submit', script: 'submit=reset-after' },
  'submit-502-after': { slot: 'submit', script: 'submit=502-after' },
  'submit-504-after': { slot: 'submit', script: 'submit=504-after' },
  'submit-524-after': { slot: 'submit', script: 'submit=524-after' },
  'submit-500-after': { slot: 'submit', script: 'submit=500-after' },
  'submit-truncated-after': { slot: 'submit', script: 'submit=truncated-after' },
  'submit-no-id-after': { slot: 'submit', script: 'submit=no-id-after' },
  'submit-empty-after': { slot: 'submit', script: 'submit=empty-after' },
  'submit-html-after': { slot: 'submit', script: 'submit=html-after' },
  'submit-garbage-after': { slot: 'submit', script: 'submit=garbage-after' },
  'submit-with-id': { slot: 'submit', script: 'submit=with-id:500' },
  // No task was created.
  'submit-reset-before': { slot: 'submit', script: 'submit=reset-before' },
  'submit-500': { slot: 'submit', script: 'submit=500' },
  'submit-502': { slot: 'submit', script: 'submit=502' },
  'submit-429': { slot: 'submit', script: 'submit=429*2' },
  'submit-429-retry-after': { slot: 'submit', script: 'submit=429*2, retry-after=1s' },
  'submit-429-retry-date': { slot: 'submit', script: 'submit=429, retry-after=date:2s' },
  'submit-rate-in-200': { slot: 'submit', script: 'submit=rate-in-200' },
  'submit-rejected': { slot: 'submit', script: 'submit=rejected*forever' },
  'submit-invalid-request': { slot: 'submit', script: 'submit=invalid-request*forever' },
  'submit-400': { slot: 'submit', script: 'submit=400*forever' },
  'submit-403': { slot: 'submit', script: 'submit=403*forever' },
  'submit-redirect': { slot: 'submit', script: 'submit=redirect' },
  'submit-misrouted': { slot: 'submit', script: 'submit=html-before:404' },
  'submit-quota-code': { slot: 'submit', script: 'submit=flat:403:insufficient_user_quota' },
  'submit-no-channel': { slot: 'submit', script: 'submit=error:503:model_not_found*2' },
  'submit-401': { slot: 'submit', script: 'submit=401' },
  'submit-402': { slot: 'submit', script: 'submit=402' },
  'submit-quota': { slot: 'submit', script: 'submit=quota' },
  // Two tasks for one submit: the gateway sent it twice.
  'submit-double': { slot: 'submit', script: 'submit=double' },

  'slow-submit': { slot: 'pace', script: 'submit-delay=2s' },
  'late-visible': { slot: 'pace', script: 'visible-after=2s' },
  'stuck-at-99': { slot: 'pace', script: 'stuck=3s' },

  'shape-b': { slot: 'shape', script: 'shape=B' },
  'shape-o': { slot: 'shape', script: 'shape=O' },
  'shape-callback': { slot: 'shape', script: 'shape=C' },
  'shape-numbers': { slot: 'shape', script: 'id=number, submit-shape=data-id, progress=number, times=ms' },

  'poll-429': { slot: 'poll', script: 'poll=429*2' },
  'poll-500': { slot: 'poll', script: 'poll=500*2' },
  'poll-502': { slot: 'poll', script: 'poll=502>504' },
  'poll-html': { slot: 'poll', script: 'poll=html' },
  'poll-garbage': { slot: 'poll', script: 'poll=garbage' },
  'poll-empty': { slot: 'poll', script: 'poll=empty' },
  'poll-truncated': { slot: 'poll', script: 'poll=truncated' },
  'poll-reset': { slot: 'poll', script: 'poll=reset*2' },
  'poll-401': { slot: 'poll', script: 'poll=401' },
  'poll-redirect': { slot: 'poll', script: 'poll=redirect' },
  'poll-business': { slot: 'poll', script: 'poll=business' },
  'poll-drip': { slot: 'poll', script: 'poll=drip:2s' },
  'poll-not-visible': { slot: 'poll', script: 'poll=ok>not-visible' },

  'failed-safety': { slot: 'result', script: 'result=failed:SAFETY.INPUT.TEXT' },
  'failed-internal': { slot: 'result', script: 'result=failed:INTERNAL.BAD_OUTPUT.CODE01' },
  'failed-without-reason': { slot: 'result', script: 'result=failed, error-in=none' },
  'url-late': { slot: 'result', script: 'no-url=2' },
  'url-in-fail-reason': { slot: 'result', script: 'url-in=fail_reason' },
  'url-list': { slot: 'result', script: 'url-form=list' },
  'unknown-words': { slot: 'result', script: 'queued-word=WARMING_UP, running-word=DREAMING' },
  'outer-failed': { slot: 'result', script: 'outer=failed' },

  'video-truncated': { slot: 'video', script: 'video=truncated' },
  'video-truncated-chunked': { slot: 'video', script: 'video=truncated-chunked' },
  'video-drop': { slot: 'video', script: 'video=drop' },
  'video-short': { slot: 'video', script: 'video=short' },
  'video-empty': { slot: 'video', script: 'video=empty' },
  'video-html': { slot: 'video', script: 'video=html' },
  'video-garbage': { slot: 'video', script: 'video=garbage' },
  'video-503': { slot: 'video', script: 'video=503' },
  'video-reset': { slot: 'video', script: 'video=reset' },
  'video-slow': { slot: 'video', script: 'video=slow:2s' },
  'video-expired': { slot: 'video', script: 'video=expired' },
  'video-expired-404': { slot: 'video', script: 'video=expired:404' },
  'video-redirect': { slot: 'video', script: 'video=redirect' },
  'video-no-length': { slot: 'video', script: 'video=no-length' },

  'poster-missing': { slot: 'poster', script: 'poster=missing' },
  'poster-404': { slot: 'poster', script: 'poster=404*forever' },
  'last-frame-missing': { slot: 'poster', script: 'last-frame=missing' },

  'callback-lost': { slot: 'callback', script: 'callback=lost' },
  'callback-double': { slot: 'callback', script: 'callback=double' },
  'callback-every': { slot: 'callback', script: 'callback=every' },
  'callback-out-of-order': { slot: 'callback', script: 'callback=out-of-order' },
  'callback-late': { slot: 'callback', script: 'callback-delay=3s' },
  'callback-early': { slot: 'callback', script: 'callback=early' },
  'callback-wrong-token': { slot: 'callback', script: 'callback=wrong-token' },
  'callback-garbage': { slot: 'callback', script: 'callback=garbage' },
} as const satisfies Record<string, Fault>;

export type FaultName = keyof typeof FAULT_SCRIPTS;
export const FAULTS = Object.keys(FAULT_SCRIPTS) as readonly FaultName[];

/** The probability of each fault, 0 to 1; a fault that is not named never applies. */
export type Rates = Partial<Record<FaultName, number>>;

/** Rates that cannot be used; the message says which and why. */
export class RatesError extends ReelhaulError {
  constructor(message: string) {
    super('invalid_rates', message);
  }
}

function isFault(name: string): name is FaultName {
  return Object.hasOwn(FAULT_SCRIPTS, name);
}

/** Refuses unknown names, numbers outside 0..1, and slots whose rates come to more than 1. */
export function checkRates(rates: Readonly<Record<string, unknown>>): Rates {
  const checked: Rates = {};
  const sums = new Map<string, number>();
  for (const [name, rate] of Object.entries(rates)) {
    if (!isFault(name)) throw new RatesError(`expected one of the faults ${FAULTS.join(', ')}, got ${name}`);
    if (typeof rate !== 'number' || !(rate >= 0 && rate <= 1)) {
      throw new RatesError(`${name}: expected a rate from 0 to 1, got ${JSON.stringify(rate)}`);
    }
    const { slot } = FAULT_SCRIPTS[name];
    const sum = (sums.get(slot) ?? 0) + rate;
    // A little more than 1 is only rounding.
    if (sum > 1 + 1e-9) {
      throw new RatesError(`expected the rates of all ${slot} faults to be at most 1 together, got ${sum}`);
    }
    sums.set(slot, sum);
    checked[name] = rate;
  }
  return checked;
}

/**
 * Reads `submit-reset-after=0.05,poll-429=0.1`. `each=0.01` stands for every fault that is not named, and a slot
 * (`video=0.2`) for its faults that are not named, in equal shares of what it says.
 */
export function parseRates(text: string): Rates {
  const rates: Record<string, number> = {};
  const groups: [name: string, rate: number][] = [];
  for (const piece of text.split(',')) {
    if (piece.trim() === '' && text.trim() === '') break;
    const [name = '', value = ''] = piece.split('=').map((part) => part.trim());
    const rate = value === '' ? Number.NaN : Number(value);
    const known =
      isFault(name) || name === 'each' || FAULTS.some((fault) => FAULT_SCRIPTS[fault].slot === name);
    if (!known) {
      throw new RatesError(`expected each, a slot or one of the faults ${FAULTS.join(', ')}, got ${name}`);
    }
    if (!(rate >= 0 && rate <= 1)) {
      throw new RatesError(`${name}: expected a rate from 0 to 1, got ${JSON.stringify(value)}`);
    }
    if (isFault(name)) rates[name] = rate;
    else groups.push([name, rate]);
  }
  // Slots before `each`, so that the narrower one wins.
  groups.sort(([first], [second]) => Number(first === 'each') - Number(second === 'each'));
  for (const [name, rate] of groups) {
    const members = FAULTS.filter(
      (fault) => !(fault in rates) && (name === 'each' || FAULT_SCRIPTS[fault].slot === name),
    );
    for (const fault of members) rates[fault] = name === 'each' ? rate : rate / members.length;
  }
  return checkRates(rates);
}

export interface DrawnFaults {
  readonly faults: readonly FaultName[];
  readonly script: ScriptPart;
}

/** The faults of `generation` (any text that names it), at most one of each slot. */
export function drawFaults(rates: Rates, seed: number, generation: string): DrawnFaults {
  const faults: FaultName[] = [];
  const script: ScriptPart = {};
  /** One throw per slot, and how much of it the rates so far have covered. */
  const slots = new Map<string, { readonly dice: number; covered: number }>();
  for (const name of FAULTS) {
    const rate = rates[name] ?? 0;
    if (rate === 0) continue;
    const { slot, script: text } = FAULT_SCRIPTS[name];
    const thrown = slots.get(slot) ?? { dice: roll(seed, 'fault', slot, generation), covered: 0 };
    slots.set(slot, thrown);
    const from = thrown.covered;
    thrown.covered += rate;
    if (thrown.dice >= from && thrown.dice < thrown.covered) {
      faults.push(name);
      Object.assign(script, parseScript(text));
    }
  }
  return { faults, script };
}
