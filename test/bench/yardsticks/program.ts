/** What the programs of the yardsticks have in common: their settings, the same HTTP work, and a count of what is over. */
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import axios from 'axios';
import type { Settings } from '../contestant.js';
import { IMAGE, KEY } from '../rig.js';

/** What the parent hands over as the first argument. */
export interface YardstickOptions extends Settings {
  readonly baseUrl: string;
  readonly folder: string;
  /** Of Redis or PostgreSQL; empty where none is used. */
  readonly storeUrl: string;
}

export const options = JSON.parse(process.argv[2] ?? '{}') as YardstickOptions;

export interface AssetLinks {
  readonly video: string;
  /** Null: the provider made none. */
  readonly poster: string | null;
  readonly lastFrame: string | null;
}

/** The body of a submit. */
export const orderOf = (prompt: string): object => ({
  callback_url: 'https://example.com/webhook',
  prompt,
  model: 'gen4',
  image: IMAGE,
  ratio: '1280:720',
});

export const HEADERS = { Authorization: `Bearer ${KEY}`, 'X-Runway-Version': '2024-11-06' };

/** The provider's answer to a poll, as far as a plain client reads it. */
export interface FeedAnswer {
  readonly data: {
    readonly status: string;
    readonly poster?: string | null;
    readonly last_frame?: string | null;
    readonly data: { readonly output?: readonly string[] };
  };
}

/** The three calls, as the documentation of axios would have one write them. */
export async function submitWithAxios(prompt: string): Promise<string> {
  const { data } = await axios.post<{ data: { task_id: string } }>(
    `${options.baseUrl}/runway/pro/generate`,
    orderOf(prompt),
    { headers: HEADERS, timeout: 90_000 },
  );
  return data.data.task_id;
}

/** Null while the task goes on. */
export async function pollWithAxios(taskId: string): Promise<AssetLinks | null> {
  const { data } = await axios.post<FeedAnswer>(
    `${options.baseUrl}/runway/feed`,
    { task_id: taskId },
    { headers: HEADERS, timeout: 30_000 },
  );
  return linksIn(data);
}

export async function downloadWithAxios(taskId: string, links: AssetLinks): Promise<void> {
  const folder = await folderOf(taskId);
  for (const [name, url] of filesOf(links)) {
    const { data } = await axios.get<Readable>(url, { responseType: 'stream', timeout: 30_000 });
    await pipeline(data, createWriteStream(join(folder, name)));
  }
}

export function linksIn({ data }: FeedAnswer): AssetLinks | null {
  if (data.status === 'FAILURE') throw new Error('the task failed');
  const { poster, last_frame: lastFrame } = data;
  const video = data.data.output?.[0];
  if (data.status !== 'SUCCESS' || !video) return null;
  return { video, poster: poster ?? null, lastFrame: lastFrame ?? null };
}

export async function folderOf(taskId: string): Promise<string> {
  const folder = join(options.folder, taskId);
  await mkdir(folder, { recursive: true });
  return folder;
}

export const filesOf = ({ video, poster, lastFrame }: AssetLinks): readonly (readonly [string, string])[] => {
  const files: (readonly [string, string])[] = [['video.mp4', video]];
  if (poster !== null) files.push(['poster.jpg', poster]);
  if (lastFrame !== null) files.push(['last-frame.jpg', lastFrame]);
  return files;
};

let over = 0;
let told = 0;
/** Another one is over; the parent is told five times a second. */
export function countOver(): void {
  over += 1;
}
const telling = setInterval(() => {
  if (over !== told) process.send?.({ over });
  told = over;
}, 200);

/** Ends the program in order. */
export function onStop(stop: () => Promise<void>): void {
  process.once('SIGTERM', () => {
    clearInterval(telling);
    void stop().then(() => process.disconnect?.());
  });
}
