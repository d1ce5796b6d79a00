/** How many things an operator has to decide: the number beside the inbox on every page. */
import type { Fleet, FleetFigures } from '../../telemetry/snapshot.js';

export interface Inbox {
  /** Both null when Redis does not answer. */
  read(): Promise<{ readonly figures: FleetFigures | null; readonly count: number | null }>;
}

/** What the count consists of. */
export const countOf = ({ generations, notificationsDead, limits: { refused } }: FleetFigures): number =>
  generations.unconfirmed + notificationsDead + (refused ? 1 : 0);

export function createInbox(fleet: Fleet): Inbox {
  return {
    async read() {
      const figures = await fleet.read();
      return { figures, count: figures === null ? null : countOf(figures) };
    },
  };
}
