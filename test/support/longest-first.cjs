/**
 * The order of the test files: those that take longest come first, so that no worker of Jest is left with one at the end. Jest
 * knows how long a file took in its last run; a fresh clone had none, and would go by the size of the files.
 */
const { default: Sequencer } = require('@jest/test-sequencer');

const LONGEST = [
  'chaos',
  'limits/at-work',
  'http/dashboard/browser',
  'cli/cli',
  'flows/redis-faults',
  'cli/doctor/broken',
  'telemetry/health',
  'flows/one-bill',
  'telemetry/tracing',
  'limits/queue',
  'fuzz-money',
  'readme',
  'flows/following',
  'flows/erase',
  'redis/layout',
  'docs/first-hour',
  'workers/sweep',
  'limits/doubt',
  'flows/hints',
  'flows/redis-cluster',
];
const rank = ({ path }) => {
  const place = LONGEST.findIndex((name) => path.endsWith(`/test/${name}.test.ts`));
  return place === -1 ? LONGEST.length : place;
};

module.exports = class extends Sequencer {
  sort(tests) {
    return super.sort(tests).sort((a, b) => rank(a) - rank(b));
  }
};
