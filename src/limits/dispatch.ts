/**
 * Brings those whose turn it is to the submit queue. Called whenever something was enqueued, begun or freed, and by each
 * worker's own clock for what becomes due without anybody's doing; calls that come together become one.
 */
import type { Logger } from 'pino';
import type { Queues } from '../queue/queues.js';
import type { Line } from './line.js';

export interface Dispatch {
  /** Looks who is next; `freed` has a slot less in use. Never throws: what it misses, the next look finds. */
  soon(freed?: { readonly tenant: string }): Promise<void>;
  /** The same, and whoever has a job and waits for better times tries again now. */
  wake(): Promise<void>;
  /**
   * Looks by itself from now on, until stopped. `publish` writes the limits to Redis: now, and whenever they are gone.
   * @throws when that fails the first time.
   */
  keep(publish: () => Promise<void>): Promise<() => Promise<void>>;
}

export interface DispatchDeps {
  readonly line: Line;
  readonly queues: Pick<Queues, 'remindMany' | 'hasten'>;
  readonly log: Logger;
}

/** How soon it is tried again when Redis fails. */
const RETRY_MS = 1000;

export function createDispatch({ line, queues, log }: DispatchDeps): Dispatch {
  const freed = new Set<string>();
  let all = false;
  let withoutLimits = false;
  let running: Promise<number> | null = null;
  let next: Promise<number> | null = null;

  async function look(): Promise<number> {
    const looks = [...(all ? (['all'] as const) : []), ...[...freed].map((tenant) => ({ tenant }))];
    all = false;
    freed.clear();
    let dueMs = RETRY_MS;
    for (const look of looks.length > 0 ? looks : [null]) {
      const letIn = await line.letIn(look);
      withoutLimits = letIn === null;
      if (letIn === null) return RETRY_MS;
      dueMs = letIn.dueMs;
      if (letIn.generationIds.length > 0)
        await queues.remindMany(
          'submit',
          letIn.generationIds.map((generationId) => ({ generationId })),
        );
    }
    return dueMs;
  }

  async function safely(): Promise<number> {
    try {
      return await look();
    } catch (error) {
      log.warn({ err: error }, 'the waiting line could not be looked at; it is again soon');
      return RETRY_MS;
    }
  }

  /** One look at a time, and one more for everybody who asked while it went on. */
  function request(): Promise<number> {
    if (running === null) {
      running = safely().finally(() => {
        running = null;
      });
      return running;
    }
    next ??= running.then(() => {
      next = null;
      return request();
    });
    return next;
  }

  return {
    async soon(one) {
      if (one) freed.add(one.tenant);
      await request();
    },

    async wake() {
      for (const generationId of await line.ready()) await queues.hasten('submit', generationId);
      await request();
    },

    async keep(publish) {
      await publish();
      let stopped = false;
      let timer: NodeJS.Timeout | null = null;
      let looking: Promise<void> = Promise.resolve();
      const tick = async () => {
        all = true;
        const dueMs = await request();
        if (withoutLimits)
          await publish().catch((error: unknown) =>
            log.warn({ err: error }, 'the limits could not be written; nobody is let in until they are'),
          );
        if (stopped) return;
        timer = setTimeout(
          () => {
            looking = tick();
          },
          Math.max(1, dueMs),
        );
      };
      looking = tick();
      return async () => {
        stopped = true;
        if (timer) clearTimeout(timer);
        await looking;
      };
    },
  };
}
