/** One Redis for the whole run, on a port of its own. Each test file keeps to its own key prefix. */
import { launchRedis } from '../../dist/src/cli/demo/redis-server.js';

export default async function setup() {
  const redis = await launchRedis();
  process.env.TEST_REDIS_URL = redis.url;
  process.env.TEST_REDIS_KIND = redis.kind;
  globalThis.reelhaulTestRedis = redis;
  process.stderr.write(`Redis for the tests: ${redis.description}\n`);
  if (redis.kind === 'embedded') {
    process.stderr.write(
      'No redis-server on PATH: the tests that kill or restart a real server are skipped.\n',
    );
  }
}
