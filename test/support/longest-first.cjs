/**
 * The order of the test files: those that take longest come first, so that no worker of Jest is left with one at the end; those that
 * start many processes (chaos, rolling, readme …) are apart from each other, between those that mostly wait. Jest knows how
 * long a file took in its last run; a fresh clone had none, and would go by the size of the files.
 */
const { default: Sequencer } = require('@jest/test-sequencer');

const LONGEST = [
  'http/dashboard/browser',
  'cli/cli',
  'limits/at-work',
  'chaos',
  'flows/redis-faults',
  'cli/doctor/broken',
  'telemetry/health',
  'rolling',
  'flows/one-bill',
  'flows/following',
  'readme',
  'redis/layout',
  'flows/erase',
  'telemetry/tracing',
  'limits/queue',
  'package',
  'limits/doubt',
  'flows/redis-cluster',
  'http/dashboard/proxies',
  'fuzz-money',
  'flows/redis-access',
  'workers/sweep',
  'flows/hints',
  'docs/first-hour',
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
