/**
 * Polls on bull-board: they stand on the timetable instead of in a queue of BullMQ, and are shown beside the queues as if
 * they were one, with the same columns. To look at only: what changes a generation are the buttons of its own page.
 */
import { BaseAdapter } from '@bull-board/api/dist/queueAdapters/base.js';
import type { Planned, Timetable } from '../../queue/timetable.js';

type Job = Awaited<ReturnType<BaseAdapter['getJobs']>>[number];
type JobStatus = ReturnType<BaseAdapter['getJobStatuses']>[number];

export interface BoardOfPollsOptions {
  readonly timetable: Timetable;
  /** INFO of the server. */
  readonly info: () => Promise<string>;
}

/** The board reads from `start` to `end`, both inclusive; without an end, everything it shows on one page. */
const PAGE = 100;

export class BoardOfPolls extends BaseAdapter {
  readonly #timetable: Timetable;
  readonly #info: () => Promise<string>;

  constructor({ timetable, info }: BoardOfPollsOptions) {
    super('bullmq', {
      readOnlyMode: true,
      description: 'Which generation is polled when: the timetable',
    });
    this.#timetable = timetable;
    this.#info = info;
  }

  getName(): string {
    return 'poll';
  }

  getStatuses(): ReturnType<BaseAdapter['getStatuses']> {
    return ['latest', ...this.getJobStatuses()];
  }

  getJobStatuses(): JobStatus[] {
    return ['active', 'waiting', 'delayed'];
  }

  async getJobCounts(): ReturnType<BaseAdapter['getJobCounts']> {
    const { due, delayed, active } = await this.#timetable.counts();
    return { active, waiting: due, delayed };
  }

  /** The earliest first. Those that are due stand before those that are not. */
  async getJobs(statuses: JobStatus[], start = 0, end = start + PAGE - 1): Promise<Job[]> {
    const jobs: Job[] = [];
    const { due, at } = await this.#timetable.counts();
    if (statuses.includes('active')) {
      const active = await this.#timetable.page('active', start, end);
      jobs.push(...active.map((one) => this.#jobOf(one, 'active', at)));
    }
    const wantsDue = statuses.includes('waiting');
    const wantsLater = statuses.includes('delayed');
    if (!wantsDue && !wantsLater) return jobs;
    const shift = wantsDue ? 0 : due;
    const planned = await this.#timetable.page('planned', start + shift, end < 0 ? end : end + shift);
    for (const one of planned) {
      const status = one.at <= at ? 'waiting' : 'delayed';
      if (statuses.includes(status)) jobs.push(this.#jobOf(one, status, at));
    }
    return jobs;
  }

  async getJob(id: string): Promise<Job | null> {
    const found = await this.#timetable.find(id);
    if (found === null) return null;
    const { at } = await this.#timetable.counts();
    const status = found.active ? 'active' : found.at <= at ? 'waiting' : 'delayed';
    return this.#jobOf(found, status, at);
  }

  /** @param now of Redis' clock */
  #jobOf({ generationId, at }: Planned, status: 'active' | 'waiting' | 'delayed', now: number): Job {
    const delay = status === 'delayed' ? at - now : 0;
    return {
      opts: { delay },
      promote: refuse,
      remove: refuse,
      retry: refuse,
      getState: () => Promise.resolve(status),
      toJSON: () => ({
        id: generationId,
        name: 'poll',
        progress: 0,
        attemptsMade: 0,
        delay,
        timestamp: now,
        failedReason: '',
        stacktrace: null,
        data: {},
        returnvalue: null,
        opts: { delay },
      }),
    };
  }

  getRedisInfo(): Promise<string> {
    return this.#info();
  }

  async isPaused(): Promise<boolean> {
    return (await this.#timetable.counts()).heldMs > 0;
  }

  getJobLogs = (): Promise<string[]> => Promise.resolve([]);
  getMetrics = (): ReturnType<BaseAdapter['getMetrics']> =>
    Promise.resolve({ meta: { count: 0, prevTS: 0, prevCount: 0 }, data: [], count: 0 });
  getJobSchedulers = (): Promise<[]> => Promise.resolve([]);
  getJobSchedulersCount = (): Promise<number> => Promise.resolve(0);
  getGlobalConcurrency = (): Promise<null> => Promise.resolve(null);

  clean = refuse;
  addJob = refuse;
  pause = refuse;
  resume = refuse;
  empty = refuse;
  obliterate = refuse;
  promoteAll = refuse;
  removeJobScheduler = refuse;
  updateJobScheduler = refuse;
  runJobSchedulerNow = refuse;
  setGlobalConcurrency = refuse;
}

function refuse(): Promise<never> {
  return Promise.reject(new Error('Polls can be looked at here, and not changed.'));
}
