/**
 * Links to files of the API itself, which asks for the key. A gateway names its own file by the content path of the task
 * (`/v1/videos/<task>/content`): relative, or on a host name that only the gateway knows (`localhost:3000`, a second
 * name). Such a link is asked for where the API is configured, and only for the task it belongs to.
 */
import { parseLink, type Link } from './link.js';

export interface Api {
  /** `COMETAPI_BASE_URL`. */
  readonly baseUrl: string;
  readonly key: string;
  /** The task whose files are fetched. Without it no link is taken for a content link of a task. */
  readonly taskId?: string;
}

const CONTENT_PATH = /^\/v1\/videos\/(?<task>[^/]+)\/content$/;

/** The link as it is to be fetched. @throws AssetError `forbiddenHost` */
export function apiLink(text: string, api: Api): Link {
  if (!URL.canParse(api.baseUrl)) return parseLink(text);
  const link = parseLink(text, parseLink(api.baseUrl));
  const ofTask = api.taskId !== undefined && taskOf(link.url) === api.taskId;
  return ofTask ? parseLink(link.target, parseLink(api.baseUrl)) : link;
}

/**
 * Does this link get the key? Only a `…/content` path on the API's own origin (scheme, host, port), and never the
 * content of another task.
 */
export function needsKey(url: URL, { baseUrl, taskId }: Api): boolean {
  if (!URL.canParse(baseUrl) || url.origin !== new URL(baseUrl).origin) return false;
  const task = taskOf(url);
  if (task !== null && taskId !== undefined) return task === taskId;
  return url.pathname.endsWith('/content');
}

function taskOf(url: URL): string | null {
  const task = CONTENT_PATH.exec(url.pathname)?.groups?.['task'];
  if (task === undefined) return null;
  try {
    return decodeURIComponent(task);
  } catch {
    return task;
  }
}
