/**
 * The files to deploy with. Containers cannot be started here: the files are checked by their own linters and schemas,
 * and the commands in them are taken out and run as plain processes, with ports and folders of this machine.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ScaledObject } from '@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject';
import { validate } from 'dockerfile-utils';
import { Deployment } from 'kubernetes-models/apps/v1/Deployment';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import { Secret } from 'kubernetes-models/v1/Secret';
import { Service } from 'kubernetes-models/v1/Service';
import { parse, parseAllDocuments } from 'yaml';
import { readConfig, VARIABLES } from '../src/config/config.js';
import { freePort } from '../src/cli/demo/redis-server.js';
import { needs } from './support/needs.js';
import { redisUrl } from './support/testbed.js';
import { until } from './support/until.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string) => readFileSync(join(root, file), 'utf8');

interface ComposeService {
  readonly image?: string;
  readonly entrypoint?: string[];
  readonly command?: string[];
  readonly environment?: Record<string, string>;
  readonly env_file?: { path: string; required: boolean }[];
  readonly healthcheck?: { test: string[] };
  readonly stop_grace_period?: string;
  readonly configs?: { source: string; target: string }[];
}
const compose = parse(read('docker-compose.yml'), { merge: true }) as {
  services: Record<string, ComposeService>;
  configs: Record<string, { content: string }>;
};
const dockerfile = read('Dockerfile');
const inDockerfile = (pattern: RegExp) => JSON.parse(pattern.exec(dockerfile)![1]!) as string[];
const entrypoint = inDockerfile(/^ENTRYPOINT (.*)$/m);
const healthCommand = inDockerfile(/^HEALTHCHECK [^]*?CMD (\[.*)$/m);
const shutdownMs = readConfig({}).SHUTDOWN_TIMEOUT_MS;

const modules = {
  ConfigMap: 'kubernetes-models/v1/ConfigMap',
  Deployment: 'kubernetes-models/apps/v1/Deployment',
  PodDisruptionBudget: 'kubernetes-models/policy/v1/PodDisruptionBudget',
  ScaledObject: '@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject',
  Secret: 'kubernetes-models/v1/Secret',
  Service: 'kubernetes-models/v1/Service',
};
const KINDS = { ConfigMap, Deployment, PodDisruptionBudget, ScaledObject, Secret, Service };
interface Manifest {
  readonly kind: string;
  readonly data?: Record<string, string>;
  readonly stringData?: Record<string, string>;
  readonly metadata: { name: string };
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly enableServiceLinks: boolean;
        readonly containers: readonly {
          args: string[];
          ports: { name: string; containerPort: number }[];
          livenessProbe: { httpGet: { path: string; port: string } };
          readinessProbe: { httpGet: { path: string; port: string } };
        }[];
      };
    };
    readonly triggers: readonly { metadata: { query: string } }[];
  };
}
const folder = 'docs/deploy/kubernetes';
const manifests = readdirSync(join(root, folder))
  .filter((name) => name !== 'kustomization.yaml')
  .flatMap((name) => parseAllDocuments(read(join(folder, name))).map((one) => one.toJS() as Manifest));
const deployments = manifests.filter(({ kind }) => kind === 'Deployment');

describe('as their own tools see them', () => {
  test('docker-compose.yml has no finding of dclint', () => {
    const program = join(root, 'node_modules/dclint/bin/dclint.cjs');
    const { status, stdout } = spawnSync(
      process.execPath,
      [program, '--max-warnings', '0', 'docker-compose.yml'],
      {
        cwd: root,
        encoding: 'utf8',
      },
    );
    expect([stdout.trim(), status]).toEqual(['', 0]);
  });

  test.each(['grafana', 'minio'])('%s has no default password and does not start without one', (name) => {
    const { environment = {}, entrypoint: [shell = '', ...args] = [] } = compose.services[name]!;
    for (const [variable, value] of Object.entries(environment))
      if (/USER|PASSWORD/.test(variable)) expect(value).toMatch(/^\$\{[A-Z_]+:-\}$/);
    // As compose hands them to the container: with one dollar sign.
    const { status, stderr } = spawnSync(
      shell,
      args.map((arg) => arg.replaceAll('$$', '$')),
      { env: { PATH: '/usr/bin:/bin' }, encoding: 'utf8' },
    );
    expect(stderr).toMatch(/^set [A-Z_]+/);
    expect(status).toBe(1);
  });

  test('every image is named by an exact version', () => {
    for (const { image } of Object.values(compose.services))
      if (image !== undefined) expect(image).toMatch(/^[a-z/]+:(v?\d+\.\d+\.\d+|RELEASE\.[\dTZ-]+)$/);
  });

  test('the Dockerfile has no finding of dockerfile-utils', () => {
    expect(validate(dockerfile)).toEqual([]);
  });

  test.each(manifests.map((manifest) => [manifest.kind, manifest.metadata.name, manifest] as const))(
    'Kubernetes: %s %s is what its schema says',
    (kind, _, manifest) => {
      const Kind = KINDS[kind as keyof typeof KINDS] as unknown as new (data: object) => { validate(): void };
      expect(() => new Kind(manifest).validate()).not.toThrow();
    },
  );

  test('no manifest has a field that its kind does not know', async () => {
    // The schemas let unknown fields pass, such as a misspelt probe. The compiler, with the types beside them, does not.
    const place = await mkdtemp(join(tmpdir(), 'reelhaul-manifests-'));
    await symlink(join(root, 'node_modules'), join(place, 'node_modules'));
    const source = manifests.map((manifest, i) => {
      const from = modules[manifest.kind as keyof typeof KINDS];
      return `import type { I${manifest.kind} as Kind${i} } from '${from}';\nexport const m${i}: Kind${i} = ${JSON.stringify(manifest)};\n`;
    });
    await writeFile(join(place, 'manifests.ts'), source.join(''));
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const flags = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', 'manifests.ts'];
    const { stdout } = spawnSync(process.execPath, [tsc, ...flags], { cwd: place, encoding: 'utf8' });
    await rm(place, { recursive: true });
    expect(stdout).toBe('');
  });

  test.each(deployments.map((one) => [one.metadata.name, one] as const))(
    '%s gets no variables from Services that happen to be named like a setting',
    (_, { spec }) => expect(spec.template.spec.enableServiceLinks).toBe(false),
  );

  test('the kustomization lists every manifest', () => {
    const { resources } = parse(read(join(folder, 'kustomization.yaml'))) as { resources: string[] };
    const files = readdirSync(join(root, folder)).filter((name) => name !== 'kustomization.yaml');
    expect([...resources].sort()).toEqual(files.sort());
  });

  needs('systemd-analyze').test('systemd takes the units', () => {
    const units = ['worker', 'server'].map((name) => join(root, `docs/deploy/reelhaul-${name}.service`));
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
    // Node may live elsewhere on this machine.
    const complaints = stderr
      .split('\n')
      .filter((line) => /reelhaul/.test(line) && !/is not executable/.test(line));
    expect([complaints, status === 0 || /is not executable/.test(stderr)]).toEqual([[], true]);
  });
});

interface Scraped {
  readonly job_name: string;
  readonly authorization?: { readonly credentials_file: string };
  readonly dns_sd_configs: readonly { readonly names: readonly string[]; readonly port: number }[];
}
const { scrape_configs: scraped } = parse(read('docs/deploy/compose/prometheus.yml')) as {
  scrape_configs: Scraped[];
};

describe('as reelhaul sees them', () => {
  test('whoever stops a worker waits longer than SHUTDOWN_TIMEOUT_MS', () => {
    const [, unit] = /^TimeoutStopSec=(\d+)$/m.exec(read('docs/deploy/reelhaul-worker.service'))!;
    const worker = deployments.find(({ metadata }) => metadata.name === 'reelhaul-worker')!;
    const patience = [
      Number(compose.services['worker']!.stop_grace_period!.replace('s', '')),
      worker.spec.template.spec.terminationGracePeriodSeconds,
      Number(unit),
    ];
    for (const seconds of patience) expect(seconds * 1000).toBeGreaterThan(shutdownMs);
  });

  test('every setting in them is one, and together they are taken', () => {
    const settings = Object.assign(
      {},
      ...manifests.map(({ data, stringData }) => ({ ...data, ...stringData })),
    );
    const inCompose = compose.services['worker']!.environment!;
    const unknown = [...Object.keys(settings as object), ...Object.keys(inCompose)].filter(
      (name) => !VARIABLES.includes(name) && !name.startsWith('AWS_'),
    );
    expect(unknown).toEqual([]);
    expect(() => readConfig(settings as Record<string, string>)).not.toThrow();
    expect(compose.services['server']!.environment).toEqual(inCompose);
  });

  test('compose hands every other setting on from .env, and keeps what its own parts count on', () => {
    for (const name of ['server', 'worker']) {
      const { env_file: files, environment } = compose.services[name]!;
      expect(files).toEqual([{ path: '.env', required: false }]);
      const exposed = /^EXPOSE (\d+) (\d+)$/m.exec(dockerfile)!;
      expect([environment!['PORT'], environment!['WORKER_PORT']]).toEqual([exposed[1], exposed[2]]);
    }
  });

  test('the units start what the package installs', () => {
    const { bin } = JSON.parse(read('package.json')) as { bin: { reelhaul: string } };
    for (const [unit, command] of [
      ['worker', 'worker'],
      ['server', 'serve'],
    ]) {
      const [, run] = /^ExecStart=(.*)$/m.exec(read(`docs/deploy/reelhaul-${unit}.service`))!;
      expect(run).toBe(`/usr/bin/node /opt/reelhaul/node_modules/reelhaul/${bin.reelhaul} ${command}`);
    }
    expect(entrypoint).toEqual(['node', bin.reelhaul]);
  });
});

describe('the commands of docker-compose.yml, with simulate.env', () => {
  const given = parseEnv(read('docs/deploy/compose/simulate.env')) as Record<string, string>;
  const ports: Record<string, number> = {};
  const running = new Map<string, ChildProcess>();
  const outputs = new Map<string, string>();
  let archive: string;

  /** What is another container there is a port of this machine here. */
  const here = (text: string) => {
    const { host } = new URL(redisUrl());
    return text
      .replaceAll('redis:6379', host)
      .replaceAll('simulator:4000', `127.0.0.1:${ports['simulator']}`)
      .replaceAll('server:3000', `127.0.0.1:${ports['server']}`)
      .replaceAll('127.0.0.1:4000', `127.0.0.1:${ports['simulator']}`)
      .replaceAll('file:/archive', `file:${archive}`)
      .replace(/^4000$/, String(ports['simulator']))
      .replace(/^20000$/, '50')
      .replace(/^0\.0\.0\.0$/, '127.0.0.1')
      .replace(/^simulator$/, '127.0.0.1');
  };

  /** With what compose puts in from the environment. */
  const filled = (text: string) =>
    text.replaceAll(/\$\{(\w+):([-+])([^}]*)\}/g, (_, key: string, sign: string, other: string) =>
      sign === '-' ? given[key] || other : given[key] ? other : '',
    );

  function environmentOf(service: string): Record<string, string> {
    const { environment = {} } = compose.services[service]!;
    const settings = Object.entries(environment).map(([name, text]) => [name, here(filled(text))]);
    const { PATH = '' } = process.env;
    return {
      ...(Object.fromEntries(settings) as Record<string, string>),
      ...{
        PATH,
        NODE_ENV: 'production',
        PORT: String(ports['server']),
        WORKER_PORT: String(ports['worker']),
      },
      ...{ REDIS_PREFIX: `{deploy-${process.pid}}`, POLL_FIRST_DELAY_MS: '50', POLL_MIN_INTERVAL_MS: '50' },
    };
  }

  function start(service: string): void {
    const [, file = ''] = entrypoint;
    const child = spawn(process.execPath, [file, ...compose.services[service]!.command!.map(here)], {
      cwd: root,
      env: environmentOf(service),
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) =>
        outputs.set(service, (outputs.get(service) ?? '') + chunk.toString()),
      );
    running.set(service, child);
  }

  /** The exit code of a health check, run with the environment of its container. */
  function health(service: string): number | null {
    const { healthcheck } = compose.services[service]!;
    const [, ...command] = healthcheck ? healthcheck.test.slice(1) : healthCommand;
    const own = service === 'worker' ? { PORT: '1' } : { WORKER_PORT: '1' };
    const env = { ...environmentOf(service), ...own };
    return spawnSync(process.execPath, command.map(here), { env }).status;
  }

  beforeAll(async () => {
    archive = await mkdtemp(join(tmpdir(), 'reelhaul-deploy-'));
    for (const name of ['simulator', 'server', 'worker']) ports[name] = await freePort();
    for (const name of ['simulator', 'server', 'worker']) start(name);
  });
  afterAll(async () => {
    for (const child of running.values()) child.kill('SIGKILL');
    await rm(archive, { recursive: true });
  });

  test.each(['simulator', 'server', 'worker'])(
    '%s comes up, and its health check says so',
    async (service) => {
      await until(
        () => health(service) === 0,
        () => Promise.resolve(`${service}: ${outputs.get(service)}`),
      );
    },
  );

  test('a generation goes all the way', async () => {
    const ask = async (path: string, init: RequestInit = {}) => {
      const headers = { authorization: `Bearer ${given['API_TOKENS']}`, 'content-type': 'application/json' };
      const answer = await fetch(`http://127.0.0.1:${ports['server']}/v1/generations${path}`, {
        ...init,
        headers,
      });
      return (await answer.json()) as { id: string; state: string };
    };
    const body = JSON.stringify({ prompt: 'in a container', image: 'https://example.com/still.png' });
    const { id } = await ask('', { method: 'POST', body });
    await until(
      async () => (await ask(`/${id}`)).state === 'succeeded',
      async () => `${JSON.stringify(await ask(`/${id}`))} ${outputs.get('worker')}`,
    );
  });

  test('the dashboard lets in whom simulate.env names', async () => {
    const { DASHBOARD_USER: user = '', DASHBOARD_PASSWORD: password = '' } = given;
    const { status } = await fetch(`http://127.0.0.1:${ports['server']}/dashboard/login`, {
      method: 'POST',
      redirect: 'manual',
      body: new URLSearchParams({ user, password }),
    });
    expect(status).toBe(303);
  });

  test.each(scraped.map((job) => [job.job_name, job] as const))(
    'Prometheus gets from each of %s what it asks for',
    async (_, { authorization, dns_sd_configs: [place] }) => {
      const { names, port } = place!;
      const [service = ''] = names;
      const own = compose.services[service]!.environment!;
      expect(String(port)).toBe(own[service === 'server' ? 'PORT' : 'WORKER_PORT']);
      const headers: Record<string, string> = {};
      if (authorization) {
        const { source } = compose.services['prometheus']!.configs!.find(
          ({ target }) => target === authorization.credentials_file,
        )!;
        headers['authorization'] = `Bearer ${filled(compose.configs[source]!.content)}`;
      }
      const answer = await fetch(`http://127.0.0.1:${ports[service]}/metrics`, { headers });
      expect(answer.status).toBe(200);
      expect(await answer.text()).toContain('reelhaul_build_info');
      // Whoever has the token of Prometheus reads, and changes nothing.
      if (!authorization) return;
      const url = `http://127.0.0.1:${ports[service]}/v1/generations`;
      expect((await fetch(url, { headers })).status).toBe(200);
      expect((await fetch(url, { method: 'POST', headers })).status).toBe(403);
    },
  );

  test.each(deployments.map((one) => [one.metadata.name, one] as const))(
    'Kubernetes: the probes of %s are answered by that process',
    async (_, { spec }) => {
      const [{ args, ports: named, livenessProbe, readinessProbe }] = spec.template.spec.containers as [
        (typeof spec.template.spec.containers)[0],
      ];
      const service = args[0] === 'serve' ? 'server' : 'worker';
      expect(compose.services[service]!.command).toEqual(args);
      const settings = { PORT: '3000', ...Object.assign({}, ...manifests.map(({ data }) => data ?? {})) };
      expect(String(named[0]!.containerPort)).toBe(
        (settings as Record<string, string>)[service === 'server' ? 'PORT' : 'WORKER_PORT'],
      );
      for (const { httpGet } of [livenessProbe, readinessProbe]) {
        expect(httpGet.port).toBe(named[0]!.name);
        const { status } = await fetch(`http://127.0.0.1:${ports[service]}${httpGet.path}`);
        expect([httpGet.path, status]).toEqual([httpGet.path, 200]);
      }
    },
  );

  test('KEDA asks for a metric that a worker tells', async () => {
    const { query } = manifests.find(({ kind }) => kind === 'ScaledObject')!.spec.triggers[0]!.metadata;
    const [name = ''] = /reelhaul_\w+/.exec(query) ?? [];
    const metrics = await (await fetch(`http://127.0.0.1:${ports['worker']}/metrics`)).text();
    expect(metrics).toContain(`${name}{stage="submit"}`);
  });

  test.each(['worker', 'server', 'simulator'])(
    'SIGTERM ends %s in order, and its health check sees it gone',
    async (service) => {
      const child = running.get(service)!;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      expect(await exited).toEqual([0, null]);
      expect(health(service)).not.toBe(0);
    },
  );
});

test('what compose mounts is there', () => {
  const mounted = [...read('docker-compose.yml').matchAll(/- (\.\/[^:]+):/g)].map(([, path]) => path!);
  expect(mounted.length).toBeGreaterThan(3);
  for (const path of mounted) expect([basename(path), read(path).length > 0]).toEqual([basename(path), true]);
});
