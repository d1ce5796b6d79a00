/** The text at `GET /`: what can be asked of a running simulator. */
import { FAULTS } from './faults.js';
import { DIRECTIVES } from './script.js';

export function helpText(): string {
  return [
    'reelhaul provider simulator',
    '',
    'POST /runway/pro/generate   submit; script it with [sim: …] in the prompt or with X-Simulator-Script',
    'POST /runway/feed           poll',
    'GET  /assets/…              files',
    'GET  /user/quota?key=…      balance',
    'GET  /ledger                what was asked, created, billed (?part=totals for the sums alone)',
    'GET  /expected/<taskId>/<video|poster|lastFrame>   size and sha256 of a file as it should arrive',
    'POST /control/rates         {"<fault>": 0.1, …} or "each=0.01"',
    'POST /control/script        {"script": "…"} for every generation',
    'POST /control/outage        {"mode": "refuse", "durationMs": 5000}',
    'POST /control/reset         forget everything',
    '',
    `directives: ${Object.keys(DIRECTIVES).join(' ')}`,
    `faults: ${FAULTS.join(' ')}`,
    '',
  ].join('\n');
}
