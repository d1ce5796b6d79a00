/** What an app hands in: every problem is named where it is, with what was probably meant. */
import { expect, test } from '@jest/globals';
import { InvalidInputError } from '../../src/errors.js';
import { didYouMean } from '../../src/generation/did-you-mean.js';
import { readOrder } from '../../src/generation/options.js';
import { requestSchema, requestWarnings } from '../../src/generation/request.js';

/** What is wrong, by its place. */
function problemsOf(request: object, options: object = {}): Record<string, string> {
  try {
    readOrder(request as never, options, Date.now());
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    return Object.fromEntries(error.problems.map(({ path, message }) => [path, message]));
  }
  return {};
}

const HALF = '\ud83e';

test.each([
  [{ prompt: `a fox ${HALF} runs` }, {}, 'request.prompt', 6],
  [{ prompt: HALF }, {}, 'request.prompt', 0],
  [{ prompt: '🦊 \udd8a' }, {}, 'request.prompt', 3],
  [{ prompt: 'x', style: `ab${HALF}` }, {}, 'request.style', 2],
  [{ prompt: 'x', options: { deep: [{ er: `a${HALF}` }] } }, {}, 'request.options.deep.0.er', 1],
  [{ prompt: 'x', options: { [HALF]: 1 } }, {}, 'request.options.\ufffd (its name)', 0],
  [{ prompt: 'x' }, { metadata: { title: `abc${HALF}` } }, 'options.metadata.title', 3],
  [{ prompt: 'x' }, { tenant: `abc${HALF}` }, 'options.tenant', 3],
  [{ prompt: 'x' }, { idempotencyKey: HALF }, 'options.idempotencyKey', 0],
])('half an emoji is refused with its position: %j %j', (request, options, path, position) => {
  expect(problemsOf(request, options)[path]).toBe(
    `expected whole characters, got half of a surrogate pair at position ${position}`,
  );
});

test('whole emojis pass', () => {
  expect(problemsOf({ prompt: 'a 🦊 in 👩‍👩‍👧' }, { metadata: { '🦊': '🦊' } })).toEqual({});
});

test.each([
  [{ prompt: 'x', imageUrl: 'https://example.com/a.png' }, {}, 'request.imageUrl', 'did you mean image?'],
  [{ prompt: 'x', image_url: 'https://example.com/a.png' }, {}, 'request.image_url', 'did you mean image?'],
  [{ promt: 'x' }, {}, 'request.promt', 'did you mean prompt?'],
  [{ prompt: 'x', lastImage: 'https://e.com/a.png' }, {}, 'request.lastImage', 'did you mean last_image?'],
  [{ prompt: 'x' }, { notifyURL: 'https://e.com' }, 'options.notifyURL', 'did you mean notifyUrl?'],
  [{ prompt: 'x' }, { idempotency_key: 'a' }, 'options.idempotency_key', 'did you mean idempotencyKey?'],
  [{ prompt: 'x', notifyUrl: 'https://e.com' }, {}, 'request.notifyUrl', 'it belongs into options'],
  [{ prompt: 'x' }, { model: 'gen4' }, 'options.model', 'it belongs into request'],
  [
    { prompt: 'x', notifyURL: 'https://e.com' },
    {},
    'request.notifyURL',
    'did you mean notifyUrl, in options?',
  ],
  [{ prompt: 'x', callback_url: 'https://e.com' }, {}, 'request.callback_url', 'sets callback_url itself'],
  [{ prompt: 'x', zebra: 1 }, {}, 'request.zebra', 'expected only the documented ones'],
])('a misspelt field is named with what was meant: %j %j', (request, options, path, words) => {
  expect(problemsOf(request, options)[path]).toContain(words);
});

test('a misspelt option of the provider passes, with a warning', () => {
  const request = requestSchema.parse({
    prompt: 'x',
    image: 'https://example.com/a.png',
    options: { second: 10, upscale: true },
  });
  expect(requestWarnings(request)).toEqual([
    {
      code: 'option_unknown',
      message: 'The option second is passed on as it is. Did you mean seconds?',
    },
  ]);
});

test('a name that is far from all is meant for none', () => {
  expect(didYouMean('HOME', ['PORT', 'PRICES'])).toBeNull();
  expect(didYouMean('MAX_IN_FLIGTH', ['MAX_IN_FLIGHT_PER_TENANT', 'MAX_IN_FLIGHT'])).toBe('MAX_IN_FLIGHT');
});
