/**
 * Gathers what one turn of the event loop writes to Redis into one write to the socket. ioredis writes each command by
 * itself, and with fifty jobs at once a system call per command costs more than the command. Nothing else changes: the
 * order is the same, each command stays its own, with its own answer and its own error. (ioredis' own auto-pipelining ties
 * commands together: of a pipeline that a lost connection interrupts, ioredis rejects those it would else send again.)
 */
import type { Socket } from 'node:net';

/** A connection that has a socket while it is connected. */
interface Connection {
  readonly stream: Pick<Socket, 'cork' | 'uncork' | 'write'>;
  on(event: 'connect', listener: () => void): unknown;
}

/** From the next `connect` on. */
export function gatherWrites(connection: Connection): void {
  connection.on('connect', () => {
    const { stream } = connection;
    const write = stream.write.bind(stream) as (...parameters: unknown[]) => boolean;
    let gathering = false;
    stream.write = (...parameters: unknown[]) => {
      if (!gathering) {
        gathering = true;
        stream.cork();
        setImmediate(() => {
          gathering = false;
          stream.uncork();
        });
      }
      return write(...parameters);
    };
  });
}
