/**
 * Commands of the command line, run in this process: starting Node anew for each would be most of what the suite costs.
 * What only a process has (signals, its own log, a clock) needs `runProcess`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { jest } from '@jest/globals';
// What commands load side by side is there already: Jest cannot link two imports that share modules at a time.
import '../../src/cli/doctor/examine.js';
import '../../src/cli/doctor/settings.js';
import '../../src/http/health-routes.js';
import '../../src/http/server.js';
import '../../src/telemetry/metrics.js';
import { run } from '../../src/cli/run.js';
import { cliFile, SHORT_LIVED } from './testbed.js';

export interface CommandResult {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

type Environment = Readonly<Record<string, string>>;

/** What a test runner's own environment gives a command. */
function withBasics(environment: Environment): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME, ...environment };
}

/** Collects what is written to a stream of this process until `restore` is called. */
function capture(stream: NodeJS.WriteStream): { text(): string; restore(): void } {
  let text = '';
  const spy = jest.spyOn(stream, 'write').mockImplementation((chunk: string | Uint8Array) => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    return true;
  });
  return { text: () => text, restore: () => spy.mockRestore() };
}

let running = false;

/** Runs one command to its end. Only one at a time: environment, output and exit code are those of this process. */
export async function runCommand(args: readonly string[], environment: Environment): Promise<CommandResult> {
  if (running) throw new Error('another command is running in this process: use runProcess');
  running = true;
  const env = process.env;
  const out = capture(process.stdout);
  const err = capture(process.stderr);
  process.env = withBasics(environment);
  process.exitCode = 0;
  try {
    await run(args);
    return { code: process.exitCode, out: out.text(), err: err.text() };
  } finally {
    process.exitCode = 0;
    process.env = env;
    out.restore();
    err.restore();
    running = false;
  }
}

/** The same as a process of its own. */
export async function runProcess(
  args: readonly string[],
  environment: Environment,
  nodeArguments: readonly string[] = [],
): Promise<CommandResult> {
  const child = spawn(process.execPath, [...SHORT_LIVED, ...nodeArguments, cliFile, ...args], {
    env: withBasics(environment),
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
}
