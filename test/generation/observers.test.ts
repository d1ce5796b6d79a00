import { expect, test } from '@jest/globals';
import { createMoves, type Move } from '../../src/generation/observers.js';
import { readRecord } from '../../src/store/read-record.js';

const move: Move = {
  record: readRecord('01', { state: 'queued', createdAt: '1', updatedAt: '1' }),
  from: 'queued',
  to: 'submitting',
  at: 2,
  change: {},
};

test('every listener hears of a move, also behind one that throws', () => {
  const errors: unknown[] = [];
  const heard: string[] = [];
  const moves = createMoves((error) => errors.push(error));
  moves.listen(() => {
    throw new Error('broken');
  });
  moves.listen(({ from, to }) => heard.push(`${from} → ${to}`));
  moves.tell(move);
  expect(heard).toEqual(['queued → submitting']);
  expect(errors).toHaveLength(1);
});

test('who stopped listening hears no more', () => {
  const heard: Move[] = [];
  const moves = createMoves(() => {});
  const stop = moves.listen((one) => heard.push(one));
  stop();
  moves.tell(move);
  expect(heard).toEqual([]);
});
