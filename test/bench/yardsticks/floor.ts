/**
 * The floor: the same HTTP work with undici and no queue at all, in one process, nothing durable. Prompts come as messages.
 */
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { pipeline } from 'node:stream/promises';
import { request } from 'undici';
import {
  countOver,
  filesOf,
  folderOf,
  HEADERS,
  linksIn,
  onStop,
  options,
  orderOf,
  type AssetLinks,
  type FeedAnswer,
} from './program.js';

async function post(path: string, body: object): Promise<unknown> {
  const answer = await request(`${options.baseUrl}${path}`, {
    method: 'POST',
    headers: { ...HEADERS, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return answer.body.json();
}

const client = {
  async submit(prompt: string): Promise<string> {
    const { data } = (await post('/runway/pro/generate', orderOf(prompt))) as { data: { task_id: string } };
    return data.task_id;
  },
  poll: async (taskId: string) => linksIn((await post('/runway/feed', { task_id: taskId })) as FeedAnswer),
  async download(taskId: string, links: AssetLinks): Promise<void> {
    const folder = await folderOf(taskId);
    for (const [name, url] of filesOf(links)) {
      const { body } = await request(url);
      await pipeline(body, createWriteStream(join(folder, name)));
    }
  },
};

/** Lets so many through at once. */
function gate(places: number) {
  const waiting: (() => void)[] = [];
  return async <T>(work: () => Promise<T>): Promise<T> => {
    if (places === 0) await new Promise<void>((go) => waiting.push(go));
    else places -= 1;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else places += 1;
    }
  };
}

const submits = gate(options.submitsAtOnce);
const polls = gate(options.pollsAtOnce);
const downloads = gate(options.downloadsAtOnce);

async function make(prompt: string): Promise<void> {
  const taskId = await submits(() => client.submit(prompt));
  await wait(options.firstPollMs);
  for (;;) {
    const links = await polls(() => client.poll(taskId));
    if (links !== null) {
      await downloads(() => client.download(taskId, links));
      countOver();
      return;
    }
    await wait(options.pollEveryMs);
  }
}

process.on('message', (prompts: readonly string[]) => {
  for (const prompt of prompts) void make(prompt);
});
onStop(() => Promise.resolve());
