/** A testbed with its server and two accounts, and a visitor that logs in without a browser. */
import { startApi, type Answer, type AskOptions, type TestApi } from './api.js';
import { createTestbed, type Testbed, type TestbedOptions } from './testbed.js';

export const OPERATOR = { user: 'ada', password: 'correct horse battery' } as const;
export const VIEWER = { user: 'vera', password: 'only looking around' } as const;
export const ACCOUNTS = {
  DASHBOARD_USER: OPERATOR.user,
  DASHBOARD_PASSWORD: OPERATOR.password,
  DASHBOARD_VIEWER_USER: VIEWER.user,
  DASHBOARD_VIEWER_PASSWORD: VIEWER.password,
} as const;

/** What browsers send with a page. */
export const PAGE = { accept: 'text/html' } as const;

export interface Visit {
  readonly cookie: string;
  readonly get: (path: string, options?: AskOptions) => Promise<Answer>;
  /** Sends a form as the pages do, with the token of this session. */
  readonly post: (
    path: string,
    fields: Readonly<Record<string, string | readonly string[]>>,
    options?: AskOptions,
  ) => Promise<Answer>;
}

export function formOf(fields: Readonly<Record<string, string | readonly string[]>>): AskOptions {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields))
    for (const one of typeof value === 'string' ? [value] : value) form.append(name, one);
  return { body: form.toString(), headers: { 'content-type': 'application/x-www-form-urlencoded' } };
}

export const csrfIn = ({ text }: Answer): string => /name="csrf"\s+value="([^"]+)"/.exec(text)?.[1] ?? '';

const cookieIn = ({ headers }: Answer): string => (headers.get('set-cookie') ?? '').split(';')[0] ?? '';

export async function visit(api: TestApi, account: { user: string; password: string }): Promise<Visit> {
  const login = await api.ask('POST', '/dashboard/login', formOf(account));
  if (login.status !== 303) throw new Error(`the login was answered with ${login.status}: ${login.text}`);
  const cookie = cookieIn(login);
  const get = (path: string, { headers, ...options }: AskOptions = {}) =>
    api.ask('GET', path, { ...options, headers: { ...PAGE, cookie, ...headers } });
  const csrf = csrfIn(await get('/dashboard'));
  return {
    cookie,
    get,
    post(path, fields, { headers, ...options } = {}) {
      const form = formOf({ csrf, ...fields });
      return api.ask('POST', path, {
        ...form,
        ...options,
        headers: { ...PAGE, ...form.headers, cookie, ...headers },
      });
    },
  };
}

export interface Stage {
  readonly bed: Testbed;
  readonly api: TestApi;
  close(): Promise<void>;
}

export async function openStage(
  options: TestbedOptions = {},
  serverOnly: Record<string, string> = {},
): Promise<Stage> {
  const bed = await createTestbed(options);
  const api = await startApi(bed, { ...ACCOUNTS, ...serverOnly });
  return {
    bed,
    api,
    async close() {
      await api.close();
      await bed.close();
    },
  };
}
