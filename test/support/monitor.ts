/**
 * Everything a Redis server is told, while somebody looks: `MONITOR` over a socket of its own. (ioredis' own monitor loses
 * its place when the server is busy at the moment it begins.)
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

export interface Told {
  /** In lower case. */
  readonly command: string;
  /** As the server prints it, with the arguments in quotes. */
  readonly text: string;
  /** Called by a script, rather than by a client. */
  readonly byScript: boolean;
}

export interface Monitor {
  readonly seen: readonly Told[];
  stop(): void;
}

/** `<seconds> [<database> <client or lua>] "<command>" "<argument>" …` */
const LINE = /^\+[\d.]+ \[\d+ ([^\]]+)\] "([^"]+)"(.*)$/;

export async function startMonitor(url: string): Promise<Monitor> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  const lines = createInterface({ input: socket });
  socket.write('MONITOR\r\n');
  await once(lines, 'line');
  const seen: Told[] = [];
  lines.on('line', (line) => {
    const [, source, command = '', rest = ''] = LINE.exec(line) ?? [];
    if (command) seen.push({ command: command.toLowerCase(), text: rest, byScript: source === 'lua' });
  });
  return { seen, stop: () => socket.destroy() };
}
