/** What stands behind a flag: read and checked where the command line is parsed. */
import { InvalidArgumentError } from 'commander';
import { STAGES, type Stage } from '../generation/states.js';

export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text))
    throw new InvalidArgumentError(`expected a whole number, got ${JSON.stringify(text)}`);
  return Number(text);
}

export function jsonObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {
    // Said below, with what was expected.
  }
  throw new InvalidArgumentError(`expected a JSON object, got ${text.slice(0, 80)}`);
}

export function stageList(text: string): Stage[] {
  const names = text.split(',').map((name) => name.trim());
  const wrong = names.filter((name) => !(STAGES as readonly string[]).includes(name));
  if (wrong.length > 0)
    throw new InvalidArgumentError(`expected some of ${STAGES.join(',')}, got ${wrong.join(',')}`);
  return names as Stage[];
}
