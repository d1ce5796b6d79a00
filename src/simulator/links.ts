/**
 * The addresses of a task's files. `/assets/<taskId>/video.mp4?link=<n>`, where the number grows when a fresh poll
 * replaces a dead link; with `asset-auth=key` the video is at `/v1/videos/<taskId>/content`, on the API's own origin
 * and with its key.
 */
import type { AssetName } from './media.js';
import type { Step } from './script-fields.js';
import type { AssetUrls } from './shapes.js';
import type { Task } from './task.js';

/** A private address where nothing listens, for redirects that must not be followed. */
const PRIVATE_HOST = '10.255.255.1';
/** Where clouds tell a machine its secrets. */
const METADATA_URL = 'http://169.254.169.254/latest/meta-data/';

function fileName(task: Task, asset: AssetName): string {
  switch (asset) {
    case 'video':
      return 'video.mp4';
    case 'poster':
      return `poster.${task.script.posterFormat === 'png' ? 'png' : 'jpg'}`;
    case 'lastFrame':
      return 'last-frame.jpg';
  }
}

const ASSET_OF_FILE: Readonly<Record<string, AssetName>> = {
  'video.mp4': 'video',
  'poster.jpg': 'poster',
  'poster.png': 'poster',
  'last-frame.jpg': 'lastFrame',
};

/** What a path asks for. */
export interface Wanted {
  readonly taskId: string;
  readonly asset: AssetName;
  /** The address that needs the API key. */
  readonly isContent: boolean;
}

/** Null when the path is not that of a file. */
export function wantedBy(path: string): Wanted | null {
  const content = /^\/v1\/videos\/([^/]+)\/content$/.exec(path);
  if (content?.[1] !== undefined) return { taskId: content[1], asset: 'video', isContent: true };
  const file = /^\/assets\/([^/]+)\/([^/]+)$/.exec(path);
  const asset = ASSET_OF_FILE[file?.[2] ?? ''];
  if (file?.[1] === undefined || asset === undefined) return null;
  return { taskId: file[1], asset, isContent: false };
}

/** The same address under another name for this machine. */
function alias(hostname: string): string {
  return hostname === 'localhost' ? '127.0.0.1' : 'localhost';
}

function originFor(task: Task, otherPort: number): string {
  const url = new URL(task.origin);
  const wish = task.script.assetHost;
  if (wish === 'relative') return '';
  if (wish === 'localhost') url.hostname = alias(url.hostname);
  else if (wish === 'other-port') url.port = String(otherPort);
  else if (wish !== 'same') return `http://${wish}`;
  return url.origin;
}

function linkOf(task: Task, asset: AssetName, otherPort: number): string | null {
  if (task.script[asset].some(({ word }) => word === 'missing')) return null;
  const path =
    asset === 'video' && task.script.assetAuth === 'key'
      ? `/v1/videos/${task.taskId}/content`
      : `/assets/${task.taskId}/${fileName(task, asset)}`;
  return `${originFor(task, otherPort)}${path}?link=${task.link}`;
}

/** The links a poll or callback shows now. `otherPort` is the one of the second listener. */
export function linksOf(task: Task, otherPort: number): AssetUrls {
  const { withoutUrlPolls } = task.script;
  const isWithheld = withoutUrlPolls > 0 && task.succeededPolls <= withoutUrlPolls;
  return {
    video: isWithheld ? null : linkOf(task, 'video', otherPort),
    poster: linkOf(task, 'poster', otherPort),
    lastFrame: linkOf(task, 'lastFrame', otherPort),
  };
}

/** Where a `redirect` step sends a request that came to `host` for `url`. */
export function redirectTarget(step: Step, host: string, url: URL, otherPort: number): string {
  const target = new URL(url.pathname + url.search, `http://${host}`);
  const hops = Number(url.searchParams.get('hop') ?? 0);
  const wish = step.argument ?? 'alias';
  // `hop` marks a request that was redirected: it uses up no step of its own.
  if (wish !== 'loop') target.searchParams.set('hop', String(hops + 1));
  if (/^\d+$/.test(wish)) target.searchParams.set('hops', wish);
  else if (wish === 'alias') target.hostname = alias(target.hostname);
  else if (wish === 'other-port') target.port = String(otherPort);
  else if (wish === 'metadata') return METADATA_URL;
  else if (wish === 'file') return 'file:///etc/passwd';
  else if (wish === 'loop') target.searchParams.set('loop', '1');
  else {
    // A new host keeps the old port otherwise.
    target.port = '';
    target.host = wish === 'private' ? PRIVATE_HOST : wish;
  }
  return target.href;
}
