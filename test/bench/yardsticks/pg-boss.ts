/**
 * The same with pg-boss on PostgreSQL, as its documentation would have one write it: three queues, batches, and a poll
 * that is sent again with `startAfter` while the task goes on.
 */
import PgBoss from 'pg-boss';
import {
  countOver,
  downloadWithAxios,
  onStop,
  options,
  pollWithAxios,
  submitWithAxios,
  type AssetLinks,
} from './program.js';

/** It fetches no more often, so that batches and fetchers bound what it can do. */
const FETCH_EVERY_S = 0.5;

interface Download {
  readonly taskId: string;
  readonly links: AssetLinks;
}

const boss = new PgBoss(options.storeUrl);
boss.on('error', (error) => process.stderr.write(`pg-boss: ${error.message}\n`));
await boss.start();
for (const queue of ['submit', 'poll', 'download']) await boss.createQueue(queue);

/** One of several that fetch at once, each a batch at a time. */
const fetching = (atOnce: number) => ({ pollingIntervalSeconds: FETCH_EVERY_S, batchSize: atOnce });
const FETCHERS = [1, 2, 3, 4];

for (const _ of FETCHERS) {
  await boss.work<{ prompt: string }>('submit', fetching(options.submitsAtOnce), async (jobs) => {
    await Promise.all(
      jobs.map(async ({ data }) => {
        const taskId = await submitWithAxios(data.prompt);
        await boss.send('poll', { taskId }, { startAfter: new Date(Date.now() + options.firstPollMs) });
      }),
    );
  });
  await boss.work<{ taskId: string }>('poll', fetching(options.pollsAtOnce), async (jobs) => {
    await Promise.all(
      jobs.map(async ({ data: { taskId } }) => {
        const links = await pollWithAxios(taskId);
        if (links !== null) await boss.send('download', { taskId, links });
        else await boss.send('poll', { taskId }, { startAfter: new Date(Date.now() + options.pollEveryMs) });
      }),
    );
  });
  await boss.work<Download>('download', fetching(options.downloadsAtOnce), async (jobs) => {
    await Promise.all(
      jobs.map(async ({ data: { taskId, links } }) => {
        await downloadWithAxios(taskId, links);
        countOver();
      }),
    );
  });
}

onStop(() => boss.stop({ graceful: true, timeout: 5000 }));
