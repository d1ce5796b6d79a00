/** `POST /control/…`: how another process changes a running simulator. */
import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { json, readBody, type Answer } from './answers.js';
import { checkRates, parseRates, RatesError, type Rates } from './faults.js';
import { OUTAGE_MODES, type Outage } from './outages.js';
import { ScriptError } from './script-values.js';

export interface Controls {
  setRates(rates: Rates): void;
  setScript(text: string): void;
  reset(): void;
  /** Begins once the request that asked for it is answered. */
  startOutage(outage: Outage): void;
  endOutage(): void;
}

const ratesBody = z.union([z.record(z.string(), z.number()), z.string()], {
  error: 'expected rates by fault, or a text such as "each=0.01"',
});
const scriptBody = z.object({ script: z.string() });
const outageBody = z.object({
  mode: z.enum(OUTAGE_MODES).default('refuse'),
  durationMs: z.number().min(0).max(3_600_000),
});

function refused(message: string): Answer {
  return json(400, { code: 'control_invalid', message });
}

/** Answers a control request; a bad one changes nothing and is told why. */
export async function answerControl(
  request: IncomingMessage,
  action: string,
  controls: Controls,
): Promise<Answer> {
  const text = (await readBody(request)) ?? '';
  let body: unknown;
  try {
    body = text === '' ? {} : JSON.parse(text);
  } catch {
    return refused('expected a JSON body');
  }
  try {
    switch (action) {
      case 'rates': {
        const wanted = ratesBody.parse(body);
        const rates = typeof wanted === 'string' ? parseRates(wanted) : checkRates(wanted);
        controls.setRates(rates);
        return json(200, { rates });
      }
      case 'script': {
        const { script } = scriptBody.parse(body);
        controls.setScript(script);
        return json(200, { script });
      }
      case 'reset':
        controls.reset();
        return json(200, { reset: true });
      case 'outage': {
        const outage = outageBody.parse(body);
        if (outage.durationMs === 0) controls.endOutage();
        else controls.startOutage(outage);
        return json(200, { outage });
      }
      default:
        return json(404, {
          code: 'control_unknown',
          message: 'expected rates, script, reset or outage',
        });
    }
  } catch (error) {
    if (error instanceof RatesError || error instanceof ScriptError) return refused(error.message);
    if (error instanceof z.ZodError) return refused(z.prettifyError(error));
    throw error;
  }
}
