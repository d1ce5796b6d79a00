/** Options of a download by agents of its own, with limits that no test meets unless it sets them. */
import { parseAllowedHosts } from '../../src/outbound/address-rules.js';
import type { OpenAssetOptions } from '../../src/outbound/download.js';
import { guardedAgent, resolveBySystem, type ResolvedAddress } from '../../src/outbound/guarded-agent.js';

export interface DownloadOptions extends Partial<OpenAssetOptions> {
  /** As `ARCHIVE_ALLOW_HOSTS` has them. */
  readonly allowHosts?: readonly string[];
  readonly onlyAllowed?: boolean;
  readonly resolve?: (hostname: string) => Promise<readonly ResolvedAddress[]>;
}

export function downloadOptions({
  allowHosts = [],
  onlyAllowed = false,
  resolve = resolveBySystem,
  ...options
}: DownloadOptions): OpenAssetOptions {
  const allowed = parseAllowedHosts(allowHosts);
  const guard = { allowed, onlyAllowed, resolve, setting: 'ARCHIVE_ALLOW_HOSTS' };
  return {
    agents: { agentFor: (url, signal, trusted = false) => guardedAgent(url, { ...guard, signal, trusted }) },
    userAgent: 'reelhaul',
    idleTimeoutMs: 30_000,
    totalTimeoutMs: 900_000,
    maxBytes: 5_000_000_000,
    now: Date.now,
    ...options,
  };
}
