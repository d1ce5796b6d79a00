/**
 * Restores submits that Redis forgot, from the recent posts that this process remembers. Redis may lose its last second in a crash,
 * or what its replica had not received, and with it that a request was sent; the generation would look as if it never
 * was, and be paid for again.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { Post } from '../store/submit-ledger.js';
import type { Hub } from './context.js';
import { priceOf } from '../generation/price.js';
import { adoptTask } from './adopt-task.js';
import { settle } from './advance.js';
import { giveBack } from './settle-submit.js';
import { withPost } from '../generation/submits.js';

/** While Redis refuses this write it refuses the next `submitting` too, so that trying again comes in time. */
const TRIES = 120;
const TRY_AGAIN_MS = 500;

/** Puts the records right, each by itself. */
export async function bringBack(hub: Hub, posts: readonly Post[]): Promise<void> {
  await Promise.all(posts.map((post) => insist(hub, post)));
}

async function insist(hub: Hub, post: Post): Promise<void> {
  const { generationId, taskId } = post;
  for (let tries = 1; ; tries++) {
    try {
      await bringBackOne(hub, post);
      return;
    } catch (error) {
      if (tries >= TRIES) {
        hub.log.error(
          { generationId, taskId, alarm: 'post_forgotten', err: error },
          'Redis may have forgotten a submit, and it could not be written again',
        );
        return;
      }
      await wait(TRY_AGAIN_MS);
    }
  }
}

async function bringBackOne(hub: Hub, post: Post): Promise<void> {
  const { generationId, nonce, attempt, sentAt, taskId } = post;
  const { log, store } = hub;
  const found = await settle(
    hub,
    generationId,
    async (record) => {
      if (record.attempts.submit >= attempt || taskId === false) return { settled: true };
      // As it was while the request was under way, whatever state Redis went back to: a retry may be forgotten as well.
      // The next run calls it unconfirmed; what this process knows or learns of the answer still counts, by the nonce.
      const moved = await store.recoverSubmit(record, {
        live: true,
        set: {
          taskId: null,
          submitNonce: nonce,
          submittedAt: sentAt,
          submitAttempts: attempt,
          failure: null,
          finishedAt: null,
        },
        submits: withPost(record.submits, {
          at: sentAt,
          price: priceOf(record.request, hub.config.PRICES),
          nonce,
        }),
      });
      if (!moved) return 'again';
      log.error(
        { generationId, taskId, alarm: 'post_forgotten' },
        'Redis forgot a submit; it was written again',
      );
      await hub.queues.hasten('submit', generationId);
      return { settled: true };
    },
    false,
  );
  if (!found) {
    if (taskId === false) return;
    log.error(
      { generationId, taskId, alarm: 'generation_forgotten' },
      'Redis forgot a generation whose request was sent: its task may exist and be billed',
    );
    return;
  }
  if (taskId === false) await giveBack(hub, { id: generationId, submitNonce: nonce }, null);
  else if (taskId !== null) await adoptTask(hub, generationId, taskId, { source: 'submit', post: nonce });
}
