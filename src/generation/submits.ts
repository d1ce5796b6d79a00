/**
 * The submits of a generation: one list in its record, an entry for each paid POST and for each further task that came to
 * light. Bills, spend and slots at the provider are derived from it, so that they cannot disagree.
 */
/** What is known about the bill. `possible`: it cannot be known. */
export type Charge = 'none' | 'possible' | 'charged' | 'refunded';

/** What is known of the bill of one submit. `possible` stays until it is known. */
export type Bill = 'possible' | 'charged' | 'refunded' | 'none';

export interface Submit {
  /** When the POST left, or when a further task came to light; epoch ms. Its day (UTC) is the day it is billed on. */
  readonly at: number;
  readonly bill: Bill;
  /** In millionths of the currency of `PRICES`; absent when the price is not known. */
  readonly price?: number;
  readonly taskId?: string;
  /** Of a POST whose answer may still come. */
  readonly nonce?: string;
  /** A task that no POST of ours explains: a callback brought it beside the one that is followed. */
  readonly extra?: true;
  /** When (epoch ms) a callback or an operator named its task, until the provider showed it: then it is charged. */
  readonly hint?: number;
  /** Until when (epoch ms) its task takes a slot at the provider; absent when no task of it lives. */
  readonly liveUntil?: number;
}

/** So many entries are kept: a forged or broken stream of callbacks must not grow a record without end. */
export const MAX_SUBMITS = 24;

export const writeSubmits = (submits: readonly Submit[]): string =>
  submits.length === 0 ? '' : JSON.stringify(submits);

/** What is known of the bill of them all: the gravest that any of them may be. */
export function chargeOf(submits: readonly Submit[]): Charge {
  for (const bill of ['charged', 'possible', 'refunded'] as const)
    if (submits.some((submit) => submit.bill === bill)) return bill;
  return 'none';
}

/** Every task of the list but the one that is followed. */
export const otherTasks = (submits: readonly Submit[], taskId: string | null): string[] =>
  submits.flatMap((submit) =>
    submit.taskId === undefined || submit.taskId === taskId ? [] : [submit.taskId],
  );

/** How many POSTs were made that surely or perhaps were accepted. */
export const billedSubmits = (submits: readonly Submit[]): number =>
  submits.filter(({ bill, extra }) => bill !== 'none' && extra === undefined).length;

export const lastPost = (submits: readonly Submit[]): number =>
  submits.findLastIndex(({ extra }) => extra === undefined);

/** The POST with that nonce; -1 also when it was answered. */
const postOf = (submits: readonly Submit[], nonce: string): number =>
  submits.findIndex((submit) => submit.nonce === nonce);

const replacedBy = (submits: readonly Submit[], index: number, entry: Submit): Submit[] =>
  submits.map((submit, i) => (i === index ? entry : submit));

const replaced = (submits: readonly Submit[], index: number, change: Partial<Submit>): Submit[] =>
  submits.map((submit, i) => (i === index ? { ...submit, ...change } : submit));

/** A POST is about to leave. Those that surely were not accepted are of no more use. */
export const withPost = (
  submits: readonly Submit[],
  { at, price, nonce }: { readonly at: number; readonly price: number | null; readonly nonce: string },
): Submit[] => [
  ...submits.filter(({ bill, taskId }) => bill !== 'none' || taskId !== undefined),
  { at, bill: 'possible', nonce, ...priced(price) },
];

/** A task that comes to light. `at` and `price` are those of the entry it gets when no POST explains it. */
export interface NewTask {
  readonly at: number;
  readonly taskId: string;
  readonly price: number | null;
}

/** The fields that move with a task from one POST to another. */
type Living = Pick<Submit, 'taskId' | 'bill' | 'liveUntil' | 'hint'>;

/** The entry with that task instead of its own; its instant, price and nonce stay. */
function exchanged(submit: Submit, living: Living): Submit {
  const { taskId: _task, liveUntil: _until, hint: _hint, ...post } = submit;
  const { taskId, bill, liveUntil, hint } = living;
  return {
    ...post,
    bill,
    ...(taskId === undefined ? {} : { taskId }),
    ...(hint === undefined ? {} : { hint }),
    ...lives(liveUntil),
  };
}

/** A task that was assigned to the wrong POST: it belongs to a POST whose answer was lost, or to no POST of ours. */
function withDisplaced(submits: readonly Submit[], displaced: Submit): Submit[] {
  const lost = submits.findLastIndex((submit) => isOpen(submit) && submit.bill === 'possible');
  if (lost < 0) {
    const bill = displaced.hint === undefined ? displaced.bill : 'none';
    return [...submits, { ...displaced, bill, extra: true }];
  }
  return submits.map((submit, i) => (i === lost ? exchanged(submit, displaced) : submit));
}

function answeredPost(submit: Submit): Submit {
  const { nonce: _nonce, ...post } = submit;
  return post;
}

/** That POST is over, and nothing is known of it. */
export const withoutAnswer = (submits: readonly Submit[], nonce: string): Submit[] =>
  submits.map((submit) => (submit.nonce === nonce ? answeredPost(submit) : submit));

/** Whether a POST of these may still be under way. */
export const mayBeOut = (submits: readonly Submit[]): boolean =>
  submits.some(({ nonce, bill }) => nonce !== undefined && bill === 'possible');

/** That POST surely was not accepted. */
export function withoutPost(submits: readonly Submit[], nonce: string): Submit[] {
  const index = postOf(submits, nonce);
  if (index < 0) return [...submits];
  const post = answeredPost(submits[index]!);
  const none = submits.map((submit, i) => (i === index ? exchanged(post, { bill: 'none' }) : submit));
  return post.taskId === undefined ? none : withDisplaced(none, post);
}

/** The answer to that POST names its task, whichever task was assigned to it before. */
export function withAnswer(
  submits: readonly Submit[],
  nonce: string,
  { at, taskId, price }: NewTask,
): Submit[] {
  const index = postOf(submits, nonce);
  const holder = submits.findIndex((submit) => submit.taskId === taskId);
  const held = submits[holder];
  // Redis forgot the POST, or was told of its answer already.
  if (index < 0) return held ? [...submits] : [...submits, { at, bill: 'charged', taskId, ...priced(price) }];
  const post = answeredPost(submits[index]!);
  if (index === holder) return withShown(replacedBy(submits, index, post), taskId);
  const { liveUntil } = held ?? post;
  const known = held !== undefined && held.hint === undefined && held.bill !== 'possible';
  const living = { taskId, bill: known ? held.bill : 'charged', ...lives(liveUntil) } as const;
  const own = { ...priced(price), ...exchanged(post, living) };
  const answered = submits.map((submit, i) => (i === index ? own : submit));
  if (!held) return post.taskId === undefined ? answered : withDisplaced(answered, post);
  if (held.extra && post.taskId === undefined) return answered.filter((_, i) => i !== holder);
  return answered.map((submit, i) => (i === holder ? exchanged(held, post) : submit));
}

const lives = (liveUntil: number | undefined) => (liveUntil === undefined ? {} : { liveUntil });
const priced = (price: number | null) => (price === null ? {} : { price });

const isOpen = ({ taskId, extra }: Submit): boolean => taskId === undefined && extra === undefined;

/** The provider's word on the bill of the task that is followed. */
export function withBill(submits: readonly Submit[], taskId: string | null, bill: Bill): Submit[] {
  const own = submits.findIndex((submit) => submit.taskId !== undefined && submit.taskId === taskId);
  return submits.map((submit, i) => {
    const { hint: _, ...shown } = submit;
    return i === (own >= 0 ? own : lastPost(submits)) ? { ...shown, bill } : submit;
  });
}

/** The provider showed the task. */
export function withShown(submits: readonly Submit[], taskId: string): Submit[] {
  const held = submits.find((submit) => submit.taskId === taskId);
  const isNews = held !== undefined && (held.hint !== undefined || held.bill === 'possible');
  return isNews ? withBill(submits, taskId, 'charged') : [...submits];
}

/** The provider does not know the task, or shows another request under its id: the task does not belong to this generation. */
export const withoutTask = (submits: readonly Submit[], taskId: string): Submit[] =>
  submits.flatMap((submit) => {
    if (submit.taskId !== taskId) return [submit];
    const { bill, liveUntil } = submit;
    return submit.extra ? [] : [exchanged(submit, { bill, ...lives(liveUntil) })];
  });

/** Tasks that were named, and not shown yet. */
export const hintedTasks = (submits: readonly Submit[]): Submit[] =>
  submits.filter(({ hint, taskId }) => hint !== undefined && taskId !== undefined);

/** A POST without a task whose bill is not settled, the newest first; else one that was thought not accepted. */
function postFor(submits: readonly Submit[]): number {
  const possible = submits.findLastIndex((submit) => isOpen(submit) && submit.bill === 'possible');
  return possible >= 0 ? possible : submits.findLastIndex(isOpen);
}

/**
 * The task that is followed from now on, named by no answer: it belongs to a POST that has no task yet, whose bill stays as
 * it is until the provider showed the task. `bill`: where Redis knows of no POST.
 */
export function withTask(
  submits: readonly Submit[],
  { at, taskId, price, bill = 'possible' }: NewTask & { readonly bill?: Bill },
): Submit[] {
  const known = submits.find((submit) => submit.taskId === taskId);
  if (known && !known.extra) return [...submits];
  const rest = submits.filter((submit) => submit !== known);
  // Its bill is known where the provider showed it.
  const named = known && known.hint === undefined ? { taskId, bill: known.bill } : { taskId, hint: at };
  const index = postFor(rest);
  if (index < 0) return [...rest, { at, bill, ...priced(price), ...named }];
  return replaced(rest, index, { ...named, ...priced(rest[index]?.price ?? price) });
}

/**
 * A further task: a bill of its own, once the provider showed it. It belongs to the oldest earlier POST whose answer was lost, if there is one.
 * @returns null when there are too many already.
 */
export function withFurtherTask(submits: readonly Submit[], taskId: string, at: number): Submit[] | null {
  if (submits.some((submit) => submit.taskId === taskId)) return [...submits];
  const last = lastPost(submits);
  const lost = submits.findIndex((submit, i) => isOpen(submit) && submit.bill === 'possible' && i !== last);
  if (lost >= 0) return replaced(submits, lost, { taskId, hint: at });
  if (submits.length >= MAX_SUBMITS) return null;
  const price = submits[last]?.price;
  return [...submits, { at, bill: 'none', taskId, extra: true, hint: at, ...priced(price ?? null) }];
}
