/**
 * What a Redis must be like. The old server is a stand-in that speaks just enough of the protocol, since none that old
 * can be had: everything else about Redis is tested on real ones.
 */
import { createServer, type Server } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { checkRedis } from '../../src/redis/check.js';
import { connectRedis } from '../../src/redis/connect.js';

let server: Server;
afterEach(() => {
  server.close();
});

/** Answers INFO with these lines and everything else with OK. */
async function pretend(info: string): Promise<string> {
  const bulk = `$${Buffer.byteLength(info)}\r\n${info}\r\n`;
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      for (const [, name] of chunk.toString().matchAll(/\*\d+\r\n\$\d+\r\n([a-z]+)\r\n/gi)) {
        socket.write(name!.toLowerCase() === 'info' ? bulk : '+OK\r\n');
      }
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function check(info: string): Promise<void> {
  const config = readConfig({ REDIS_URL: await pretend(info) });
  const redis = await connectRedis(config, 'producer', pino({ level: 'silent' }));
  try {
    await checkRedis(redis);
  } finally {
    redis.disconnect();
  }
}

test.each(['5.0.14', '6.0.16', '2.8.0'])(
  'version %s is refused, and everything that is wrong is named',
  async (version) => {
    const info = `redis_version:${version}\r\nmaxmemory_policy:volatile-lru\r\nrole:master`;
    await expect(check(info)).rejects.toThrow(
      new RegExp(
        `expected version 6.2 or later, got ${version}.*expected maxmemory-policy noeviction.*got volatile-lru`,
      ),
    );
  },
);

test.each(['6.2.0', '7.0.15', '8.0.0', '10.1.0'])('version %s is taken', async (version) => {
  await expect(
    check(`redis_version:${version}\r\nmaxmemory_policy:noeviction\r\nrole:master`),
  ).resolves.toBeUndefined();
});
