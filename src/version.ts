/** The version of this package, as its manifest says. */
import { createRequire } from 'node:module';

export function packageVersion(): string {
  return (createRequire(import.meta.url)('reelhaul/package.json') as { version: string }).version;
}
