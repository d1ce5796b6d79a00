/** The simulator in a process of its own, so that its CPU is told apart. It answers its parent's questions. */
import { startSimulator, type SimulatorOptions } from '../../../src/simulator/simulator.js';
import { isOver, type Question, type Reply } from './wire.js';

const options = JSON.parse(process.argv[2] ?? '{}') as SimulatorOptions;
const simulator = await startSimulator(options);
const reply = (message: Reply) => process.send?.(message);

function answer(question: Question): Reply {
  const { tasks, totals } = simulator.ledger();
  switch (question) {
    case 'totals':
      return {
        kind: 'totals',
        polls: totals.polls,
        tasks: totals.tasksCreated,
        over: tasks.filter(isOver).length,
      };
    case 'tasks':
      return {
        kind: 'tasks',
        tasks: tasks.map(({ prompt, createdAt, finishesAt, endSeenAt, polls }) => ({
          prompt,
          createdAt,
          finishesAt,
          endSeenAt,
          polls,
        })),
      };
    case 'reset':
      simulator.reset();
      return { kind: 'done' };
  }
}

process.on('message', (question: Question) => reply(answer(question)));
process.once('SIGTERM', () => {
  void simulator.close().then(() => process.disconnect?.());
});
reply({ kind: 'listening', url: simulator.url });
