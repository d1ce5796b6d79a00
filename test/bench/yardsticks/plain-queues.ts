/** The queues of the plain pipeline: what its producer and its workers agree on. */
import type { JobsOptions } from 'bullmq';

export const QUEUES = { submit: 'plain-submit', poll: 'plain-poll', download: 'plain-download' } as const;

export const JOB_OPTIONS: JobsOptions = {
  attempts: 3,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: true,
  removeOnFail: 1000,
};
