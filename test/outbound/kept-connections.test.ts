/** Connections to the hosts of assets are kept, and no promise about where they lead is given up for it. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { parseAllowedHosts } from '../../src/outbound/address-rules.js';
import { openAsset } from '../../src/outbound/download.js';
import { downloadOptions } from './download-options.js';
import { keepGuardedAgents, type KeptAgents } from '../../src/outbound/guarded-agent.js';
import { until } from '../support/until.js';

let now: number;
let address: string;
let connections: Socket[];
let agents: KeptAgents;
let port: number;
const server = createServer((_request, response) => response.end('ok'));
server.on('connection', (socket) => connections.push(socket));

beforeEach(async () => {
  now = 0;
  address = '127.0.0.1';
  connections = [];
  agents = keepGuardedAgents(
    {
      allowed: parseAllowedHosts(['127.0.0.1']),
      onlyAllowed: false,
      setting: 'ARCHIVE_ALLOW_HOSTS',
      resolve: () => Promise.resolve([{ address, family: 4 }]),
    },
    () => now,
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;
});
afterEach(async () => {
  agents.close();
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

async function fetched(): Promise<string> {
  const { body } = await openAsset(`http://assets.example:${port}/a.mp4`, downloadOptions({ agents }));
  return Buffer.concat((await body.toArray()) as Buffer[]).toString();
}

test('the next download from a host goes over the connection of the last', async () => {
  expect([await fetched(), await fetched(), await fetched()]).toEqual(['ok', 'ok', 'ok']);
  expect(connections).toHaveLength(1);
});

test('a kept connection that is cut when it is used again is replaced, and the asset still comes', async () => {
  await fetched();
  server.prependOnceListener('request', (request) => request.socket.resetAndDestroy());
  expect(await fetched()).toBe('ok');
  expect(connections).toHaveLength(2);
});

test('a fresh connection that is cut is a failure of the host', async () => {
  server.prependOnceListener('request', (request) => request.socket.resetAndDestroy());
  await expect(fetched()).rejects.toMatchObject({ kind: 'unavailable' });
});

test('after half a minute the name is resolved and checked again', async () => {
  await fetched();
  address = '127.0.0.2';
  expect(await fetched()).toBe('ok');
  now = 30_001;
  await expect(fetched()).rejects.toMatchObject({ kind: 'forbiddenHost' });
  await until(() => connections.every((socket) => socket.destroyed), 'the old connection to be closed');
});
