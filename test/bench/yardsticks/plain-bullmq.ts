/**
 * A plain BullMQ pipeline as its documentation would have one write it: three queues, each handing over to the next, the
 * poll put off with `moveToDelayed` at a fixed interval, axios. No record, no events, no verification; a crash in the
 * middle of a submit submits again.
 */
import { DelayedError, Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import {
  countOver,
  downloadWithAxios,
  onStop,
  options,
  pollWithAxios,
  submitWithAxios,
  type AssetLinks,
} from './program.js';
import { JOB_OPTIONS, QUEUES } from './plain-queues.js';

const connection = new Redis(options.storeUrl, { maxRetriesPerRequest: null });
const polls = new Queue<{ taskId: string }>(QUEUES.poll, { connection, defaultJobOptions: JOB_OPTIONS });
const downloads = new Queue<{ taskId: string; links: AssetLinks }>(QUEUES.download, {
  connection,
  defaultJobOptions: JOB_OPTIONS,
});

const workers = [
  new Worker<{ prompt: string }>(
    QUEUES.submit,
    async (job) => {
      const taskId = await submitWithAxios(job.data.prompt);
      await polls.add('poll', { taskId }, { delay: options.firstPollMs });
    },
    { connection, concurrency: options.submitsAtOnce },
  ),
  new Worker<{ taskId: string }>(
    QUEUES.poll,
    async (job, token) => {
      const links = await pollWithAxios(job.data.taskId);
      if (links === null) {
        await job.moveToDelayed(Date.now() + options.pollEveryMs, token);
        throw new DelayedError();
      }
      await downloads.add('download', { taskId: job.data.taskId, links });
    },
    { connection, concurrency: options.pollsAtOnce },
  ),
  new Worker<{ taskId: string; links: AssetLinks }>(
    QUEUES.download,
    async (job) => {
      await downloadWithAxios(job.data.taskId, job.data.links);
      countOver();
    },
    { connection, concurrency: options.downloadsAtOnce },
  ),
];

onStop(async () => {
  await Promise.all(workers.map((worker) => worker.close()));
  await Promise.all([polls.close(), downloads.close()]);
  await connection.quit();
});
