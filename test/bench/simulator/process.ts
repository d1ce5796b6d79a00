/** Starts the simulator's process and asks it. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { SimulatorOptions } from '../../../src/simulator/simulator.js';
import { startProgram, type Program } from '../processes.js';
import type { Question, Reply } from './wire.js';

const file = fileURLToPath(new URL('program.js', import.meta.url));

export interface SimulatorProcess {
  readonly url: string;
  readonly program: Program;
  ask<K extends Reply['kind']>(question: Question, kind: K): Promise<Extract<Reply, { kind: K }>>;
}

export async function startSimulatorProcess(
  options: Pick<SimulatorOptions, 'seed' | 'taskDurationMs' | 'script'>,
): Promise<SimulatorProcess> {
  const program = startProgram(file, [JSON.stringify(options)]);
  const { child } = program;

  async function next<K extends Reply['kind']>(kind: K): Promise<Extract<Reply, { kind: K }>> {
    const [reply] = (await once(child, 'message')) as [Reply];
    if (reply.kind !== kind) throw new Error(`expected ${kind} of the simulator, got ${reply.kind}`);
    return reply as Extract<Reply, { kind: K }>;
  }

  const { url } = await next('listening');
  return {
    url,
    program,
    ask(question, kind) {
      const answered = next(kind);
      child.send(question);
      return answered;
    },
  };
}
