import { describe, expect, test } from '@jest/globals';
import { pack, unpack } from '../../src/store/compression.js';

const ANSWER = JSON.stringify({
  at: 1795488401652,
  call: 'poll',
  httpStatus: 200,
  requestId: null,
  body: JSON.stringify({
    code: 'success',
    data: { task_id: 'rw7aa935f9b2', status: 'SUCCESS', data: { output: ['https://cdn.example/video.mp4'] } },
  }),
  error: null,
});

describe('a packed text', () => {
  test.each([
    ['an answer', ANSWER],
    ['nothing', ''],
    ['what is shorter unpacked', '{}'],
    ['letters of every kind', JSON.stringify({ said: 'ünïcödé 動画 🎬 \u2028 \0' })],
    ['a long one', JSON.stringify({ body: 'x'.repeat(100_000) })],
    ['what cannot be made smaller', JSON.stringify([...Array(300).keys()].map((i) => (i * 7919) % 256))],
  ])('is read as it was written: %s', (_, text) => {
    expect(unpack(pack(text))).toBe(text);
  });

  test('is less than half as long where it is the usual answer', () => {
    expect(pack(ANSWER).length).toBeLessThan(ANSWER.length / 2);
  });

  test('is never longer than it was', () => {
    for (const text of ['1', '{"a":1}', '[]']) expect(pack(text)).toBe(text);
  });

  test('of today is read by every later version', () => {
    // Written when the format was made. Should this fail, the dictionary was changed, and nothing stored can be read.
    expect(unpack('z1.g8YlEYkNGnfZqQUlSrUA')).toBe('{"at":1,"call":"submit","httpStatus":200,"body":"kept"}');
  });

  test('that was damaged is an error, not another text', () => {
    expect(() => unpack('z1.AAAA////')).toThrow();
  });
});
