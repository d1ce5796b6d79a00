/** `enqueue`: one generation from flags, or many from a file. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { Option, type Command } from 'commander';
import type { EnqueueOptionsInput } from '../generation/options.js';
import type { Generation } from '../generation/record.js';
import type { GenerationRequestInput } from '../generation/request.js';
import type { EnqueueItem, Reelhaul } from '../reelhaul.js';
import { jsonObject, wholeNumber } from './arguments.js';
import { withLibrary } from './session.js';
import { complain, print, show, waitAloud } from './terminal.js';

interface EnqueueFlags {
  prompt?: string;
  image?: string | Record<string, unknown>;
  lastImage?: string | Record<string, unknown>;
  model?: string;
  ratio?: string;
  style?: string;
  seconds?: number;
  request?: Record<string, unknown>;
  key?: string;
  tenant?: string;
  priority?: number;
  delayMs?: number;
  deadlineMs?: number;
  metadata?: Record<string, unknown>;
  onUnconfirmed?: string;
  notifyUrl?: string;
  notifyOn?: string;
  wait?: boolean;
  timeoutMs?: number;
  json?: boolean;
  file?: string;
}

const withoutUndefined = (object: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

function orderFrom(flags: EnqueueFlags): { request: GenerationRequestInput; options: EnqueueOptionsInput } {
  const options = flags.seconds === undefined ? undefined : { seconds: flags.seconds };
  const fromFlags = withoutUndefined({
    prompt: flags.prompt,
    image: flags.image,
    last_image: flags.lastImage,
    model: flags.model,
    ratio: flags.ratio,
    style: flags.style,
    options,
  });
  const wanted = withoutUndefined({
    idempotencyKey: flags.key,
    tenant: flags.tenant,
    priority: flags.priority,
    delayMs: flags.delayMs,
    deadlineMs: flags.deadlineMs,
    metadata: flags.metadata,
    onUnconfirmed: flags.onUnconfirmed,
    notifyUrl: flags.notifyUrl,
    notifyOn: flags.notifyOn,
  });
  // Checked in full by `enqueue`; here they are only put together.
  return {
    request: { ...flags.request, ...fromFlags } as GenerationRequestInput,
    options: wanted,
  };
}

function tellIgnored(ignored: readonly string[], where = ''): void {
  if (ignored.length > 0)
    complain(
      `${where}The idempotency key is known, and these options stay as they were: ${ignored.join(', ')}`,
    );
}

/** The text of a flag as a request has it: what is neither a URL nor JSON is a file, and goes to the storage. */
async function inputFrom(reelhaul: Reelhaul, text: unknown, tenant?: string) {
  if (typeof text !== 'string' || /^[a-z][a-z0-9+.-]+:/i.test(text)) return text as EnqueueFlags['image'];
  if (text.startsWith('{')) return jsonObject(text);
  const { id } = await reelhaul.addInput(text, tenant === undefined ? {} : { tenant });
  return { input: id };
}

async function withInputs(reelhaul: Reelhaul, flags: EnqueueFlags): Promise<EnqueueFlags> {
  const { image, lastImage, tenant } = flags;
  const inputs = {
    image: await inputFrom(reelhaul, image, tenant),
    lastImage: await inputFrom(reelhaul, lastImage, tenant),
  };
  return { ...flags, ...withoutUndefined(inputs) };
}

/** So many lines are read before they are stored; the progress moves by as much. */
const FILE_CHUNK = 500;

function itemFrom(line: string): EnqueueItem {
  const value = jsonObject(line);
  // Checked in full by `enqueueMany`; here only the two forms are told apart.
  return ('request' in value ? value : { request: value }) as EnqueueItem;
}

/** Each line has its own result: one that is refused is named with its number and does not hinder the others. */
async function enqueueFile(reelhaul: Reelhaul, path: string, json: boolean): Promise<void> {
  const input = path === '-' ? process.stdin : createReadStream(path);
  let chunk: { number: number; item: EnqueueItem }[] = [];
  const counts = { stored: 0, known: 0, refused: 0 };
  const refuse = (number: number, reason: string) => {
    counts.refused += 1;
    complain(`line ${number}: ${reason}`);
  };
  const store = async () => {
    const results = await reelhaul.enqueueMany(chunk.map(({ item }) => item));
    for (const [i, result] of results.entries()) {
      if (!result.ok) refuse(chunk[i]!.number, result.error.message);
      else {
        counts[result.replayed ? 'known' : 'stored'] += 1;
        tellIgnored(result.ignored, `line ${chunk[i]!.number}: `);
        if (json) print(JSON.stringify(result.generation));
      }
    }
    chunk = [];
    if (process.stderr.isTTY)
      process.stderr.write(`\r${counts.stored} stored, ${counts.known} known, ${counts.refused} refused`);
  };
  let number = 0;
  for await (const read of createInterface({ input, crlfDelay: Infinity })) {
    number += 1;
    // Editors and spreadsheets on Windows begin a UTF-8 file with a byte-order mark.
    const line = number === 1 ? read.replace(/^\uFEFF/, '') : read;
    if (line.trim() === '') continue;
    try {
      chunk.push({ number, item: itemFrom(line) });
    } catch (error) {
      refuse(number, error instanceof Error ? error.message : String(error));
    }
    if (chunk.length >= FILE_CHUNK) await store();
  }
  await store();
  if (process.stderr.isTTY) process.stderr.write('\n');
  if (!json) print(`${counts.stored} stored, ${counts.known} known already, ${counts.refused} refused`);
  if (counts.refused > 0) process.exitCode = 1;
}

export function addEnqueue(program: Command): void {
  program
    .command('enqueue')
    .description('record a generation and queue its submit')
    .option('--prompt <text>', 'what to generate')
    .option(
      '--image <url|path|json>',
      'source image: https, a file, or {"generation":"…","asset":"lastFrame"}',
    )
    .option('--last-image <url|path|json>', 'end frame, in the same forms')
    .option('--model <name>', 'default gen4')
    .option('--ratio <w:h>', 'default 1280:720')
    .option('--style <name>', 'such as cinematic')
    .option('--seconds <5|10>', 'length of the video', wholeNumber)
    .option('--request <json>', 'the whole request as JSON; the flags above override its fields', jsonObject)
    .option(
      '--file <path>',
      'many at once: a line of JSON each, { request, …options } or a bare request; - for stdin',
    )
    .option('--key <text>', 'idempotency key')
    .option('--tenant <name>', 'default "default"')
    .option('--priority <n>', 'no priority comes first, then 1, 2, 3', wholeNumber)
    .option('--delay-ms <ms>', 'submit it after so long', wholeNumber)
    .option('--deadline-ms <ms>', 'time limit, from now', wholeNumber)
    .option('--metadata <json>', 'a JSON object that comes back with the generation', jsonObject)
    .addOption(new Option('--on-unconfirmed <policy>').choices(['hold', 'resubmit', 'fail']))
    .option('--notify-url <url>', 'where a signed POST is sent when it is over')
    .addOption(new Option('--notify-on <what>', 'default end').choices(['end', 'progress']))
    .option(
      '--wait',
      'wait until it succeeded, failed, expired or was canceled; exit code 1 unless it succeeded',
    )
    .option('--timeout-ms <ms>', 'with --wait; default: no limit', wholeNumber)
    .option('--json', 'print the generation as one line of JSON')
    .addHelpText(
      'after',
      '\nExample:\n  reelhaul enqueue --prompt "a paper boat" --image https://example.com/boat.png --wait',
    )
    .action((flags: EnqueueFlags) =>
      withLibrary(async (reelhaul) => {
        if (flags.file !== undefined) return enqueueFile(reelhaul, flags.file, flags.json === true);
        const { request, options } = orderFrom(await withInputs(reelhaul, flags));
        const { ignored = [], ...enqueued } = await reelhaul.enqueue(request, options);
        tellIgnored(ignored);
        let generation: Generation = enqueued;
        if (flags.wait) generation = await waitAloud(reelhaul, generation.id, flags.timeoutMs);
        show(generation, flags.json === true);
        if (flags.wait && generation.state !== 'succeeded') process.exitCode = 1;
      }),
    );
}
