/**
 * One Redis for the whole run, on a port of its own. Each test file keeps to its own key prefix.
 * `TEST_REDIS=embedded` takes the embedded server although a real one is installed.
 */
import { launchRedis } from '../../dist/src/cli/demo/redis-server.js';

export default async function setup() {
  const wanted = process.env.TEST_REDIS || 'server';
  if (wanted !== 'server' && wanted !== 'embedded')
    throw new Error(`TEST_REDIS: expected server or embedded, got ${JSON.stringify(wanted)}`);
  // On Node 20 every file that opens a bucket would print it; docs/storage.md explains it.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true';
  const redis = await launchRedis([], { embedded: wanted === 'embedded' });
  process.env.TEST_REDIS_URL = redis.url;
  process.env.TEST_REDIS_KIND = redis.kind;
  globalThis.reelhaulTestRedis = redis;
  process.stderr.write(`Redis for the tests: ${redis.description}\n`);
}
