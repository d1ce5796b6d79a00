import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  callbackTokenMatches,
  callbackUrl,
  createCallbackToken,
  keepCallback,
  readCallback,
} from '../../src/provider/callback.js';
import { API_KEY, AT } from './exchanges.js';

const SECRET = 'a secret of some length';
const ID = '0195a1f0-0000-7000-8000-000000000001';

describe('the token', () => {
  test('is 43 characters that need no escaping, and the same for every replica', () => {
    const token = createCallbackToken(SECRET, ID);
    expect(token).toMatch(/^[\w-]{43}$/);
    expect(createCallbackToken(SECRET, ID)).toBe(token);
    expect(callbackTokenMatches(SECRET, ID, token)).toBe(true);
  });

  test('is bound to the generation and to the secret', () => {
    const token = createCallbackToken(SECRET, ID);
    expect(callbackTokenMatches(SECRET, `${ID}0`, token)).toBe(false);
    expect(callbackTokenMatches(`${SECRET}0`, ID, token)).toBe(false);
    expect(createCallbackToken(SECRET, `${ID}0`)).not.toBe(token);
  });

  test('matches nothing but itself, whatever is sent, and never throws', () => {
    const token = createCallbackToken(SECRET, ID);
    const near = [token.slice(1), `${token}=`, ` ${token}`, token.toLowerCase(), '', `${token}\0`];
    for (const wrong of near) expect(callbackTokenMatches(SECRET, ID, wrong)).toBe(false);
    fc.assert(fc.property(fc.anything(), (wrong) => !callbackTokenMatches(SECRET, ID, wrong)));
  });

  test('does not exist without a secret', () => {
    expect(() => createCallbackToken('', ID)).toThrow(RangeError);
    expect(callbackTokenMatches('', ID, '')).toBe(false);
  });
});

describe('the address', () => {
  const placeholderUrl = 'https://example.com/webhook';
  test('holds the generation and its token, with or without a slash behind the public URL', () => {
    const expected = `https://hooks.example/base/callbacks/runway/${ID}/${createCallbackToken(SECRET, ID)}`;
    for (const publicUrl of ['https://hooks.example/base', 'https://hooks.example/base/']) {
      expect(callbackUrl({ publicUrl, placeholderUrl, secret: SECRET }, ID)).toBe(expected);
    }
  });
  test('is the placeholder when the provider cannot reach us, even without a secret', () => {
    expect(callbackUrl({ publicUrl: '', placeholderUrl, secret: '' }, ID)).toBe(placeholderUrl);
    expect(callbackUrl({ publicUrl: null, placeholderUrl, secret: SECRET }, ID)).toBe(placeholderUrl);
  });
});

describe('reading what was posted', () => {
  test.each([
    ['bare', '{"task_id":"t","status":"3"}', 't', '3'],
    ['wrapped', '{"code":200,"data":{"task_id":"t","status":"success"}}', 't', 'SUCCESS'],
    ['a number', '{"task_id":98765432109876543210}', '98765432109876543210', null],
    ['the id of an event', '{"id":"evt_1","status":"3"}', null, '3'],
    ['no id', '{"status":"3"}', null, '3'],
    ['an empty id', '{"task_id":"","status":"3"}', null, '3'],
    ['no JSON', 'task_id=t', null, null],
    ['nothing', '', null, null],
    ['a list', '[{"task_id":"t"}]', null, null],
  ])('%s', (_name, body, taskId, word) => {
    expect(readCallback(body)).toEqual({ taskId, word, goingOn: false });
    expect(readCallback(Buffer.from(body))).toEqual({ taskId, word, goingOn: false });
  });

  test.each([
    ['{"task_id":"t","status":"1"}', true],
    ['{"task_id":"t","status":"queued"}', true],
    ['{"task_id":"t","status":"2"}', false],
    ['{"task_id":"t","status":"3"}', false],
    ['{"task_id":"t","status":"SOMETHING_NEW"}', false],
    ['{"task_id":"t","status":"1","video_url":"https://example.com/v.mp4"}', false],
    ['{"task_id":"t"}', false],
  ])('only a word that surely says so means that the task is going on: %s', (body, goingOn) => {
    expect(readCallback(body).goingOn).toBe(goingOn);
  });

  test('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), fc.uint8Array({ maxLength: 200 }), (text, bytes) => {
        for (const body of [text, Buffer.from(bytes)]) {
          const { taskId } = readCallback(body);
          expect(taskId === null || (taskId.length > 0 && taskId.length <= 256)).toBe(true);
        }
      }),
    );
  });

  test('is kept bounded and without the key', () => {
    const answer = keepCallback(`${'x'.repeat(2040)}${API_KEY}${'y'.repeat(100)}`, {
      at: AT,
      apiKey: API_KEY,
    });
    expect(answer).toMatchObject({ at: AT, call: 'callback', httpStatus: null, error: null });
    expect(answer.body).toBe(`${'x'.repeat(2040)}[redacte`);
  });
});
