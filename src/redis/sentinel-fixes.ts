/**
 * The way to the master that Sentinels name, as ioredis goes it, with three things mended that otherwise turn one bad
 * Sentinel, or a failover at the wrong moment, into a worker that is cut off for good:
 *
 * - A Sentinel that hangs still takes connections. It is given up after a while, and the next one is asked.
 * - The news of a failover that comes while a Sentinel is being asked ends the connection for ever, as if it had been
 *   closed. Here the Sentinels are asked once more, since the answer may be the old master.
 * - The connection on which such news are awaited prints what goes wrong with it past every log. Nothing is lost with it:
 *   it is tried again, and there is one to each Sentinel.
 */
import { SentinelConnector, type Redis, type RedisOptions } from 'ioredis';

/** What ioredis keeps to itself. */
interface Inner {
  failoverDetector?: { isDisconnected: boolean; disconnect(): void } | null;
  initFailoverDetector(): Promise<void>;
  connectToSentinel(...how: unknown[]): Redis;
}

type Stream = Awaited<ReturnType<SentinelConnector['connect']>>;

class SteadySentinels extends SentinelConnector {
  private asking = false;
  private askAgain = false;

  constructor(options: unknown) {
    super(options as ConstructorParameters<typeof SentinelConnector>[0]);
    const inner = this as unknown as Inner;
    const connectToSentinel = inner.connectToSentinel.bind(this);
    const initFailoverDetector = inner.initFailoverDetector.bind(this);
    inner.connectToSentinel = (...how) => {
      const client = connectToSentinel(...how);
      client.on('error', () => {});
      return client;
    };
    inner.initFailoverDetector = () => {
      const subscribed = initFailoverDetector();
      const detector = inner.failoverDetector;
      if (detector) {
        detector.disconnect = () => {
          // Once is enough: the next connection gets one of its own.
          detector.isDisconnected = true;
          if (this.asking) this.askAgain = true;
          else this.disconnect();
        };
      }
      return subscribed;
    };
  }

  override async connect(tell: Parameters<SentinelConnector['connect']>[0]): Promise<Stream> {
    for (;;) {
      this.asking = true;
      this.askAgain = false;
      let stream: Stream;
      try {
        stream = await super.connect(tell);
      } finally {
        this.asking = false;
      }
      if (!this.askAgain) return stream;
      stream.destroy();
    }
  }
}

/** How long one Sentinel may take. */
const TIMEOUT_MS = 2000;

export const sentinelBehaviour: Required<
  Pick<RedisOptions, 'Connector' | 'failoverDetector' | 'sentinelCommandTimeout'>
> = {
  Connector: SteadySentinels,
  // A master that hangs keeps its connections open: only Sentinel's own word gets them off it.
  failoverDetector: true,
  sentinelCommandTimeout: TIMEOUT_MS,
};
