/**
 * Secrets that notifications are signed with. Each tenant has its own, derived from `NOTIFY_SECRET`, so that nothing
 * which is signed for one tenant verifies at another's receiver. The default tenant is the operator's own and uses
 * `NOTIFY_SECRET` itself.
 */
import { createHmac } from 'node:crypto';

const OPERATOR_TENANT = 'default';

/** One for each entry of `NOTIFY_SECRET`, in their order: while one is being replaced, both sign. */
export function notifySecrets(masters: readonly string[], tenant: string): string[] {
  return masters.map((master) => {
    if (tenant === OPERATOR_TENANT) return master;
    const key = Buffer.from(master.replace(/^whsec_/, ''), 'base64');
    return `whsec_${createHmac('sha256', key).update(`notify:${tenant}`).digest('base64')}`;
  });
}
