/** The provider is away for a time: its port is closed, its connections hang, or every answer is an error. */
import { gatewayError, HANG, html, RESET, type Answer } from './answers.js';
import type { Timers } from './timers.js';

/** `refuse` closes the port; `reset` and `hang` accept connections; a number answers everything with that status. */
export const OUTAGE_MODES = ['refuse', 'reset', 'hang', '500', '502', '503', '429', '401'] as const;
export type OutageMode = (typeof OUTAGE_MODES)[number];

export interface Outage {
  readonly mode: OutageMode;
  /** How long, in ms. */
  readonly durationMs: number;
}

export interface Outages {
  /** What every call of the provider is answered now; null when it is not away. */
  answer(): Answer | null;
  start(outage: Outage): Promise<void>;
  end(): Promise<void>;
}

export interface OutagesDeps {
  readonly timers: Timers;
  readonly closePort: () => Promise<void>;
  readonly openPort: () => Promise<void>;
  /** Told when the port could not be opened again. */
  readonly onFault: (error: unknown) => void;
}

function answerDuring(mode: OutageMode): Answer {
  switch (mode) {
    case 'refuse':
    case 'reset':
      return RESET;
    case 'hang':
      return HANG;
    case '502':
      return html(502);
    case '500':
    case '503':
    case '429':
    case '401':
      return gatewayError(Number(mode), '', `simulated outage (${mode})`);
  }
}

export function createOutages({ timers, closePort, openPort, onFault }: OutagesDeps): Outages {
  let current: Outage | null = null;
  let cancelEnd: (() => void) | null = null;

  async function end(): Promise<void> {
    const ended = current;
    current = null;
    cancelEnd?.();
    if (ended?.mode === 'refuse') await openPort();
  }

  return {
    answer: () => (current === null ? null : answerDuring(current.mode)),
    async start(outage) {
      await end();
      current = outage;
      cancelEnd = timers.after(outage.durationMs, () => {
        end().catch(onFault);
      });
      if (outage.mode === 'refuse') await closePort();
    },
    end,
  };
}
