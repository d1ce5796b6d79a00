/**
 * The notify stage: tells the app. It promises that every end of a generation with a `notifyUrl` is told at least once
 * under one `webhook-id`, tried again for about a day, and then kept as dead for an operator; that nothing that goes
 * wrong here ever touches the generation; and that no tenant waits for another tenant's receiver: slots are shared fairly
 * among tenants and hosts, and a host that does not answer is asked by one notification at a time.
 */
import type { Config } from '../src/config/config.js';
import type { DeliveryResult, DueNotification } from '../src/store/outbox.js';
import { backoffMs } from '../src/polling/schedule.js';
import type { CallResult, Target } from '../src/limits/gate.js';
import type { Hub } from '../src/pipeline/context.js';
import { createFairSlots, type FairSlots } from '../src/outbound/fair-slots.js';
import { notifySecrets } from '../src/outbound/notify-secrets.js';
import { sendNotification, type Sent } from '../src/outbound/webhook.js';
import { parseAllowedHosts, type AllowedHosts } from '../src/outbound/address-rules.js';
import { done, snooze, type Outcome } from '../src/queue/runner.js';

/** With 20 tries and 5 s at first, this cap makes about a day of it. */
const MAX_BACKOFF_MS = 4 * 3_600_000;
/** While a receiver is away, waiting for it uses up no tries, for so long. */
const OUTAGE_MS = 24 * 3_600_000;

interface Process {
  readonly allowed: AllowedHosts;
  readonly slots: FairSlots;
}

/** What all runs of a process share. */
const processes = new WeakMap<Config, Process>();

function processOf({ config, now }: Hub): Process {
  const known = processes.get(config) ?? {
    allowed: parseAllowedHosts(config.NOTIFY_ALLOW_HOSTS, 'NOTIFY_ALLOW_HOSTS'),
    slots: createFairSlots(config.NOTIFY_CONCURRENCY, now),
  };
  processes.set(config, known);
  return known;
}

export async function notify(hub: Hub, generationId: string, signal: AbortSignal): Promise<Outcome> {
  const { outbox, now } = hub;
  const due = (await outbox.due(generationId)).filter(({ nextAttemptAt }) => (nextAttemptAt ?? 0) <= now());
  if (due.length > 0) {
    const waitMs = await inTurn(hub, due, signal);
    if (waitMs > 0) return snooze(waitMs);
  }
  // Read again: another end may have come meanwhile, and a job that still runs swallows the one it would have got.
  const left = (await outbox.due(generationId)).map(({ nextAttemptAt }) => nextAttemptAt ?? 0);
  return left.length === 0 ? done : snooze(Math.min(...left) - now());
}

/** Delivers what is due of one generation, or says how long it has to wait for its turn. */
async function inTurn(hub: Hub, due: readonly DueNotification[], signal: AbortSignal): Promise<number> {
  const { slots } = processOf(hub);
  const { url, generation } = due[0]!;
  const host = hostOf(url);
  const keys = [`tenant ${generation.tenant}`, host];
  const release = slots.take(keys);
  if (release === null) return slots.waitMs(keys);
  try {
    const pass = await hub.gate.pass(host, { generationId: generation.id, signal });
    const mayWait = due.every(({ at }) => hub.now() - at < OUTAGE_MS);
    if (pass.kind === 'wait' && (pass.why === 'stopped' || mayWait))
      return Math.max(1, pass.waitMs) + slots.waitMs([host]);
    for (const notification of due) await deliver(hub, notification, signal);
    return 0;
  } finally {
    release();
  }
}

const hostOf = (url: string): Target => `host:receiver@${URL.canParse(url) ? new URL(url).host : url}`;

async function deliver(hub: Hub, notification: DueNotification, signal: AbortSignal): Promise<void> {
  const { config, now, outbox, work } = hub;
  const { id, generationId, type, url, at, generation } = notification;
  const { tenant } = generation;
  const sent = await sendNotification(
    {
      id,
      tenant,
      url,
      body: JSON.stringify({ type, timestamp: new Date(at).toISOString(), data: generation }),
    },
    {
      secrets: notifySecrets(config.NOTIFY_SECRET, tenant),
      allowed: processOf(hub).allowed,
      timeoutMs: config.NOTIFY_TIMEOUT_MS,
      now,
      signal,
    },
  );
  const result = resultOf(hub, notification, sent);
  const settled = await outbox.settle(notification, result);
  if (settled) work.tell({ kind: 'notified', generationId, result: result.kind, at: now() });
  logDelivery(hub, notification, { sent, result, settled });
  const told = { generationId, probe: false, leftAgoMs: 0, result: callResultOf(sent) };
  await hub.gate.report(hostOf(url), told);
}

interface Delivery {
  readonly sent: Sent;
  readonly result: DeliveryResult;
  readonly settled: boolean;
}

function logDelivery(
  { log }: Hub,
  { id, generationId, type, attempts }: DueNotification,
  { sent, result, settled }: Delivery,
): void {
  const about = { generationId, notificationId: id, type, attempts: attempts + 1 };
  if (result.kind === 'delivered' || !settled) {
    log.info(about, settled ? 'the app was notified' : 'a notification was settled elsewhere or overtaken');
    return;
  }
  const detail = sent.kind === 'delivered' ? null : sent.detail;
  const why = { ...about, reason: result.reason, ...(detail === null ? {} : { detail }) };
  if (result.kind === 'failed') log.warn(why, 'a notification failed');
  else log.error({ ...why, alarm: 'notification_dead' }, 'a notification was given up');
}

/** A receiver that asks for time is held as a whole. */
function callResultOf(sent: Sent): CallResult {
  if (sent.kind !== 'failed') return { kind: 'answered' };
  if (sent.away) return { kind: 'away' };
  const { retryAfterMs } = sent;
  return retryAfterMs === null ? { kind: 'answered' } : { kind: 'rateLimited', retryAfterMs };
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
