import type { FleetFigures } from '../../telemetry/snapshot.js';

/** How many things an operator has to decide: the number beside the inbox on every page. Null when Redis does not answer. */
export const inboxCount = (figures: FleetFigures | null): number | null =>
  figures === null
    ? null
    : figures.generations.unconfirmed + figures.notificationsDead + (figures.limits.refused ? 1 : 0);
