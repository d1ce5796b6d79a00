/**
 * Logs: one JSON object per line with pino, readable lines on a terminal. Every line passes the redaction of secrets
 * as text, so that none gets out whatever object, header or error message carried it.
 */
import { pino, type Logger, type LoggerOptions as PinoOptions } from 'pino';
import pretty from 'pino-pretty';

/** Shorter texts than this are no secrets worth hiding and would tear holes into ordinary words. */
const MIN_SECRET_LENGTH = 6;
const HIDDEN = '[redacted]';

/** Signatures and logins in an address are secrets, wherever the message came from. */
const LOGIN = /(\w:\/\/)[^\s"\\/?#]*@/g;
const PARAMETERS = /(https?:\/\/[^\s"\\?#]+\?)[^\s"\\]+/g;

/**
 * Makes a function that takes every secret out of a text, also in its JSON and URL spellings, and out of every address
 * the login and the parameters.
 */
export function createRedactor(secrets: readonly string[]): (text: string) => string {
  const spellings = secrets
    .filter((secret) => secret.length >= MIN_SECRET_LENGTH)
    .flatMap((secret) => [
      secret,
      JSON.stringify(secret).slice(1, -1),
      encodeURIComponent(secret),
      new URLSearchParams([['', secret]]).toString().slice(1),
    ]);
  const unique = [...new Set(spellings)].sort((a, b) => b.length - a.length);
  return (text) => {
    const left = unique.reduce((rest, secret) => rest.replaceAll(secret, HIDDEN), text);
    if (!left.includes('://')) return left;
    return left.replaceAll(LOGIN, `$1${HIDDEN}@`).replaceAll(PARAMETERS, `$1${HIDDEN}`);
  };
}

/** What is said of an error: what it is, not what it was about. */
interface Told {
  readonly type: string;
  readonly message: string;
  readonly stack: string;
  readonly code?: string;
  readonly command?: string;
}

/**
 * Errors carry along what they came from: a command of Redis with a whole record, prompts and addresses in it, or a request
 * with its headers and its body. None of that is known to be a secret, so only what may be told is taken.
 */
function tellError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { type, message, stack } = pino.stdSerializers.err(error);
  const { code, command } = error as { code?: unknown; command?: { name?: unknown } };
  const told: Told = {
    type,
    message,
    stack,
    ...(typeof code === 'string' ? { code } : {}),
    ...(typeof command?.name === 'string' ? { command: command.name } : {}),
  };
  return told;
}

export interface LoggerOptions {
  readonly level: string;
  readonly secrets: readonly string[];
  /** Where lines go; default standard output, pretty when that is a terminal. */
  readonly write?: (line: string) => void;
  readonly isTerminal?: boolean;
  /** Told the `alarm` of every line that carries one. */
  readonly onAlarm?: (alarm: string) => void;
}

export function createLogger({ level, secrets, write, isTerminal, onAlarm }: LoggerOptions): Logger {
  const redact = createRedactor(secrets);
  const target = write ?? ((line: string) => void process.stdout.write(line));
  const options: PinoOptions = {
    level,
    serializers: { err: tellError },
    hooks: {
      logMethod(args, method) {
        const [fields] = args as unknown[];
        if (fields !== null && typeof fields === 'object' && 'alarm' in fields)
          onAlarm?.(String(fields.alarm));
        method.apply(this, args);
      },
    },
  };
  if (!isTerminal) return pino(options, { write: (line: string) => target(redact(line)) });
  const lines = pretty({
    ignore: 'pid,hostname',
    translateTime: 'SYS:HH:MM:ss.l',
    destination: {
      write: (line: string) => {
        target(line);
      },
    } as unknown as NodeJS.WritableStream,
    sync: true,
  });
  return pino(options, { write: (line: string) => void lines.write(redact(line)) });
}
