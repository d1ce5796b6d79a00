/**
 * The provider's JSON, read tolerantly: types drift, fields move and go missing, and nothing here throws. What cannot
 * be read is null. Shapes and rules are those of `docs/provider.md`; what an answer *means* is decided elsewhere.
 */
import { z } from 'zod';

/** 2020 to 2100: what is outside is no instant of a task. */
const EARLIEST_INSTANT = 1_577_836_800_000;
const LATEST_INSTANT = 4_102_444_800_000;

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

// ---- readers of single fields ----

/**
 * A field of any type, read by a function that handles each type. Not a union with a `catch`: most fields are
 * missing from most answers, and zod would make an error of each of them, which nothing reads.
 */
const field = <T>(read: (value: unknown) => T) => z.unknown().optional().transform(read);

/** What a string or a number looks like, trimmed; null for anything else. */
function written(value: unknown): string | null {
  if (typeof value === 'string') return value.trim();
  return typeof value === 'number' && Number.isFinite(value) ? String(value) : null;
}

/** A word or a text; empty is null. */
const text = field((value) => written(value) || null);

/**
 * A task id: 1 to 256 visible characters. Numbers become strings; 0 is how gateways spell "none". Blanks are refused
 * because a sentence in `data` ("task submitted") is not an id, control characters because ids go into logs and keys.
 */
function readTaskId(value: unknown): string | null {
  if (typeof value === 'number' && !(Number.isSafeInteger(value) && value > 0)) return null;
  const id = written(value);
  return id !== null && id.length <= 256 && /^[^\p{C}\p{Z}]+$/u.test(id) ? id : null;
}
const taskId = field(readTaskId);

/** A gateway may name its own file without scheme and host. */
const CONTENT_PATH = /^\/v1\/videos\/[^/?#\s]+\/content(\?\S*)?$/;

/** An absolute http(s) URL as it was written (signed links are fussy), a content path of the gateway, or null. */
function httpUrl(written: string): string | null {
  const url = written.trim();
  if (CONTENT_PATH.test(url)) return url;
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) return null;
  return /[\s\p{Cc}]/u.test(url) ? new URL(url).href : url;
}

/** The first http(s) URL of a field that is sometimes an array. */
function urlField(accepts: (text: string) => boolean = () => true) {
  return z
    .unknown()
    .optional()
    .transform((value) => {
      for (const item of Array.isArray(value) ? (value as unknown[]) : [value]) {
        const found = typeof item === 'string' && accepts(item.trim()) ? httpUrl(item) : null;
        if (found !== null) return found;
      }
      return null;
    });
}

const url = urlField();
/** `fail_reason` is made for texts: "https://… is down" is one, so no blanks are forgiven here. */
const urlAmongTexts = urlField((text) => !/\s/.test(text));

/** A share of 100. Without a percent sign, a number strictly between 0 and 1 is a fraction (0.37 is 37 %). */
const progress = field((value) => {
  const found = /^(-?\d+(?:\.\d+)?)\s*(%?)$/.exec(written(value) ?? '');
  if (!found) return null;
  const number = Number(found[1]);
  const percent = !found[2] && number > 0 && number < 1 ? number * 100 : number;
  return Math.min(Math.max(Math.round(percent * 100) / 100, 0), 100);
});

/** An amount in the provider's own units. Empty is not zero. */
const amount = field((value) => {
  const said = written(value) ?? '';
  return /^-?\d+(\.\d+)?$/.test(said) ? Number(said) : null;
});

/**
 * An instant in epoch ms, from seconds, milliseconds or ISO text; 0, absent and absurd ones are null. Without a zone
 * a text cannot be placed.
 */
const instant = field((value) => {
  const said = written(value) ?? '';
  const number = /^\d+(\.\d+)?$/.test(said) ? Number(said) : null;
  const zoned = /^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:?\d\d)$/.test(said);
  const at = number === null ? (zoned ? Date.parse(said) : NaN) : number < 1e11 ? number * 1000 : number;
  return at > EARLIEST_INSTANT && at < LATEST_INSTANT ? Math.round(at) : null;
});

const fields = z.custom<Fields>(isObject).nullable().catch(null);

// ---- the envelope ----

const errorShape = z.object({ code: text, message: text, msg: text });

const envelopeShape = z.object({
  code: text,
  message: text,
  msg: text,
  task_id: taskId,
  id: taskId,
  data: z.unknown().optional(),
  error: errorShape.nullable().catch(null),
});

/** What the outside of an answer says. */
export interface Envelope {
  /** `code`; null when absent or empty (the provider writes `""` for none). */
  readonly code: string | null;
  readonly errorCode: string | null;
  readonly hasError: boolean;
  /** `message` or `msg`, of `error` first. */
  readonly message: string | null;
  /** The id of the task that a submit created. */
  readonly submittedTaskId: string | null;
  /** "Not visible yet": exactly this code or message, at whichever of the documented places. */
  readonly taskNotExist: boolean;
}

const NOT_VISIBLE = 'task_not_exist';

/** Is this `code` the provider's "all is well"? (200, "200", "success", 0) */
export function isSuccessCode(code: string | null): boolean {
  return code !== null && ['200', '0', 'success'].includes(code.toLowerCase());
}

/** The envelope of a JSON object; null when the value is anything else. */
export function readEnvelope(value: unknown): Envelope | null {
  const read = envelopeShape.safeParse(value);
  if (!read.success) return null;
  const { code, message, msg, error, data } = read.data;
  const inner = isObject(data) ? data : {};
  // A bare `data` is an id only beside a success code: beside anything else it is part of the complaint.
  const bare = isSuccessCode(code) ? readTaskId(data) : null;
  const words = [code, message, msg, error?.code, error?.message, error?.msg];
  return {
    code,
    errorCode: error?.code ?? null,
    hasError: error !== null,
    message: error?.message ?? error?.msg ?? message ?? msg,
    submittedTaskId:
      readTaskId(inner['task_id']) ?? readTaskId(inner['id']) ?? read.data.task_id ?? read.data.id ?? bare,
    taskNotExist: words.some((word) => word?.toLowerCase() === NOT_VISIBLE),
  };
}

// ---- the task ----

/** The upstream's own view of a task, `task.data`. */
const upstreamShape = z.object({
  status: text,
  progress,
  output: url,
  video_url: url,
  video: z.object({ url }).nullable().catch(null),
  poster: url,
  last_frame: url,
  failure: text,
  failureCode: text,
});

const taskShape = z.object({
  task_id: taskId,
  state: text,
  status: text,
  progress,
  video_url: url,
  raw_video_url: url,
  result_url: url,
  output: url,
  url,
  fail_reason: urlAmongTexts,
  poster: url,
  last_frame: url,
  failureCode: text,
  prompt: text,
  point: amount,
  refund: amount,
  submit_time: instant,
  start_time: instant,
  finish_time: instant,
  create_time: instant,
  update_time: instant,
  data: upstreamShape.nullable().catch(null),
});

const failureShape = z.object({
  fail_reason: text,
  msg: text,
  failure: text,
  result_url: text,
  message: text,
});

/** A task as one answer describes it; every field null when the answer does not say. */
export interface TaskView {
  /** The task's own `task_id`. Not `id`, which may be a row number or the upstream's id. */
  readonly taskId: string | null;
  /** The task is the body itself (shape B, callbacks), so that a `code` beside it is no envelope's. */
  readonly bare: boolean;
  /** It has at least one of the fields that make a task; a body without any says nothing about a task. */
  readonly recognised: boolean;
  /** The state words as written, outer first. */
  readonly outerWord: string | null;
  readonly innerWord: string | null;
  readonly progress: number | null;
  readonly videoUrl: string | null;
  readonly posterUrl: string | null;
  readonly lastFrameUrl: string | null;
  /** The error text, if this task failed; on a task that did not, the same fields hold other things. */
  readonly failureText: string | null;
  readonly failureCode: string | null;
  readonly prompt: string | null;
  readonly point: number | null;
  readonly refund: number | null;
  /** Epoch ms of the provider's clock. `updatedAt` of a task that is over is when it ended. */
  readonly submittedAt: number | null;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  readonly updatedAt: number | null;
}

const TASK_MARKS = ['task_id', 'id', 'status', 'state'];

function looksLikeTask(found: Fields): boolean {
  return TASK_MARKS.some((mark) => (found[mark] ?? null) !== null);
}

/** The unwrap rule: a body with a `task_id` is the task, else `data` if it looks like one, else the body. */
function unwrap(body: Fields): { fields: Fields; bare: boolean } {
  if (readTaskId(body['task_id']) !== null) return { fields: body, bare: true };
  const data = fields.parse(body['data']);
  if (data && looksLikeTask(data)) return { fields: data, bare: false };
  return { fields: body, bare: false };
}

/** The task inside any of the shapes W, B, O and callback; null when the value is not a JSON object. */
export function readTask(value: unknown): TaskView | null {
  const body = fields.parse(value);
  if (!body) return null;
  const { fields: found, bare } = unwrap(body);
  const task = taskShape.parse(found);
  const upstream = task.data;
  const said = failureShape.parse(found);
  return {
    taskId: task.task_id,
    bare,
    recognised: looksLikeTask(found),
    outerWord: task.state ?? task.status,
    innerWord: upstream?.status ?? null,
    progress: task.progress ?? upstream?.progress ?? null,
    videoUrl:
      task.video_url ??
      task.raw_video_url ??
      task.result_url ??
      task.output ??
      upstream?.output ??
      upstream?.video_url ??
      upstream?.video?.url ??
      task.url ??
      task.fail_reason,
    posterUrl: task.poster ?? upstream?.poster ?? null,
    lastFrameUrl: task.last_frame ?? upstream?.last_frame ?? null,
    failureText:
      said.fail_reason ??
      said.msg ??
      said.failure ??
      upstream?.failure ??
      (task.result_url === null ? said.result_url : null) ??
      said.message,
    failureCode: task.failureCode ?? upstream?.failureCode ?? null,
    prompt: task.prompt,
    point: task.point,
    refund: task.refund,
    submittedAt: task.submit_time ?? task.create_time,
    startedAt: task.start_time,
    finishedAt: task.finish_time,
    updatedAt: task.update_time,
  };
}
