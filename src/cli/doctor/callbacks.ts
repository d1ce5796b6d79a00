/**
 * The doctor's look at PUBLIC_URL. Only the provider can tell whether it reaches us; what can be seen from here is seen:
 * whether the name is one of the public internet, whether DNS knows it, and whether something answers there.
 */
import { Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import { isLoopback, type Config } from '../../config/config.js';
import { isPublicAddress } from '../../outbound/address-rules.js';
import { failed, ok, warning, type Finding } from './finding.js';

const DNS_TIMEOUT_MS = 3000;
const ANSWER_TIMEOUT_MS = 5000;
/** Names that mean something in one network only. */
const INNER_NAME = /(^|\.)(localhost|local|internal|lan|home\.arpa|test|invalid|example)$/;

/** Addresses of a name; empty when there surely are none, null when DNS could not be asked. */
async function addressesOf(hostname: string): Promise<readonly string[] | null> {
  // The system's own look-up cannot be stopped, and takes half a minute where DNS is out of reach.
  const dns = new Resolver({ timeout: DNS_TIMEOUT_MS, tries: 1 });
  const found = await Promise.allSettled([dns.resolve4(hostname), dns.resolve6(hostname)]);
  const addresses = found.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  const denied = (one: PromiseSettledResult<unknown>) =>
    one.status === 'fulfilled' || /^(ENOTFOUND|ENODATA)$/.test((one.reason as { code?: string }).code ?? '');
  return addresses.length > 0 || found.every(denied) ? addresses : null;
}

/** Null: nothing speaks against it. */
async function reachProblem(url: string, hostname: string): Promise<Finding | null> {
  const about = 'callbacks';
  const inner = failed(about, `${url} cannot be reached from outside. Set PUBLIC_URL to the public name.`);
  if (isIP(hostname) !== 0) return isPublicAddress(hostname) ? null : inner;
  if (!hostname.includes('.') || INNER_NAME.test(hostname)) return inner;
  const addresses = await addressesOf(hostname);
  if (addresses === null)
    return warning(about, `DNS did not answer about ${hostname}. Check PUBLIC_URL, and DNS on this machine.`);
  if (addresses.length === 0) return failed(about, `DNS has no address of ${hostname}. Check PUBLIC_URL.`);
  if (addresses.some(isPublicAddress)) return null;
  return warning(
    about,
    `${hostname} is ${addresses.join(', ')} from here, which cannot be reached from outside. Check PUBLIC_URL, unless DNS tells the provider otherwise.`,
  );
}

export async function examineCallbacks({
  PUBLIC_URL: url,
  COMETAPI_BASE_URL: provider,
}: Config): Promise<Finding> {
  const about = 'callbacks';
  if (url === '') {
    return warning(
      about,
      'PUBLIC_URL is not set: a submit whose answer is lost cannot be recovered by a callback. Set it if the provider can reach you.',
    );
  }
  const { protocol, hostname } = new URL(url);
  const isBeside = isLoopback(url) && isLoopback(provider);
  const problem = isBeside ? null : await reachProblem(url, hostname.replaceAll(/^\[|\]$|\.$/g, ''));
  if (problem !== null) return problem;
  if (protocol !== 'https:' && !isBeside) {
    return warning(
      about,
      `${url} is not https: its tokens travel in the open. Set PUBLIC_URL to an https address.`,
    );
  }
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const status = await fetch(`${url}/healthz`, { signal, redirect: 'manual' }).then(
    (response) => response.status,
    () => null,
  );
  if (status === 200)
    return ok(about, `${url} answers from here; whether the provider reaches it shows the first one`);
  return warning(
    about,
    `${url}/healthz answered ${status === null ? 'nothing' : `HTTP ${status}`} from here. Is reelhaul serve running behind it? Check PUBLIC_URL.`,
  );
}
