/**
 * The notify stage: tells the app. It promises that every end of a generation with a `notifyUrl` is told at least once
 * under one `webhook-id`, tried again for about a day, and then kept as dead for an operator; and that nothing that goes
 * wrong here ever touches the generation.
 */
import type { Config } from '../src/config/config.js';
import type { DeliveryResult, DueNotification } from '../src/store/outbox.js';
import { backoffMs } from '../src/polling/schedule.js';
import type { Hub } from '../src/pipeline/context.js';
import { sendNotification, type Sent } from '../src/outbound/webhook.js';
import { parseAllowedHosts, type AllowedHosts } from '../src/outbound/address-rules.js';
import { done, snooze, type Outcome } from '../src/queue/runner.js';

/** With 20 tries and 5 s at first, this cap makes about a day of it. */
const MAX_BACKOFF_MS = 4 * 3_600_000;

/** The entries never change while a process lives, and every call needs them read. */
const readHosts = new WeakMap<Config, AllowedHosts>();

function allowedHosts(config: Config): AllowedHosts {
  const known = readHosts.get(config) ?? parseAllowedHosts(config.NOTIFY_ALLOW_HOSTS, 'NOTIFY_ALLOW_HOSTS');
  readHosts.set(config, known);
  return known;
}

export async function notify(hub: Hub, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const { outbox, now } = hub;
  for (const notification of await outbox.due(generationId)) {
    if ((notification.nextAttemptAt ?? 0) <= now()) await deliver(hub, notification, signal);
  }
  // Read again: another end may have come meanwhile, and a job that still runs swallows the one it would have got.
  const left = (await outbox.due(generationId)).map(({ nextAttemptAt }) => nextAttemptAt ?? 0);
  return left.length === 0 ? done : snooze(Math.min(...left) - now());
}

async function deliver(hub: Hub, notification: DueNotification, signal: AbortSignal): Promise<void> {
  const { config, now, log, outbox, work } = hub;
  const { id, generationId, type, url, at, generation } = notification;
  const sent = await sendNotification(
    { id, url, body: JSON.stringify({ type, timestamp: new Date(at).toISOString(), data: generation }) },
    {
      secrets: config.NOTIFY_SECRET,
      allowed: allowedHosts(config),
      timeoutMs: config.NOTIFY_TIMEOUT_MS,
      now,
      signal,
    },
  );
  const result = resultOf(hub, notification, sent);
  const settled = await outbox.settle(notification, result);
  const about = { generationId, notificationId: id, type, attempts: notification.attempts + 1 };
  if (settled) work.tell({ kind: 'notified', generationId, result: result.kind, at: now() });
  if (!settled) log.info(about, 'a notification was settled elsewhere or overtaken');
  else if (result.kind === 'delivered') log.info(about, 'the app was notified');
  else if (result.kind === 'failed') log.warn({ ...about, reason: result.reason }, 'a notification failed');
  else
    log.error({ ...about, reason: result.reason, alarm: 'notification_dead' }, 'a notification was given up');
}

function resultOf({ config, now, dice }: Hub, notification: DueNotification, sent: Sent): DeliveryResult {
  if (sent.kind === 'delivered') return sent;
  const attempts = notification.attempts + 1;
  if (sent.kind === 'refused') return { kind: 'dead', reason: sent.reason };
  if (attempts >= config.NOTIFY_ATTEMPTS) {
    return { kind: 'dead', reason: `${attempts} tries; the last: ${sent.reason}` };
  }
  const waitMs = backoffMs(attempts, config.NOTIFY_BACKOFF_MS, MAX_BACKOFF_MS, dice());
  const nextAttemptAt = now() + Math.max(waitMs, Math.min(sent.retryAfterMs ?? 0, MAX_BACKOFF_MS));
  return { kind: 'failed', reason: sent.reason, nextAttemptAt };
}
