/**
 * The grammar in which a generation says how the simulator shall treat it: `[sim: submit=reset-after, duration=3s]`
 * inside its prompt, or the same text in the header `X-Simulator-Script`. `docs/simulator.md` lists every directive.
 *
 *     script    := directive { "," directive }
 *     directive := name "=" value
 *     steps     := step { ">" step }                  one step per request, then "ok"
 *     step      := word [ ":" argument ] [ "*" count | "*forever" ]
 *     duration  := number ( "ms" | "s" | "m" | "h" ) | "0"
 *
 * Nothing is ever ignored: whatever cannot be understood is a `ScriptError` that says what was expected.
 */
import * as values from './script-values.js';
import {
  ERROR_PLACES,
  SHAPES,
  SUBMIT_SHAPES,
  URL_PLACES,
  type Script,
  type ScriptPart,
} from './script-fields.js';

interface Directive {
  readonly parse: (text: string) => ScriptPart;
}

function directive<K extends keyof Script>(field: K, parse: (text: string) => Script[K]): Directive {
  return { parse: (text) => ({ [field]: parse(text) }) };
}

/** Every directive, by the name a script gives it. */
export const DIRECTIVES = {
  submit: directive('submit', values.stepsOf(values.SUBMIT_STEPS, values.SUBMIT_STATUS)),
  'submit-models': directive('submitModels', (text) => values.anyText(text).split('+')),
  'submit-delay': directive('submitDelayMs', values.duration),
  'submit-shape': directive('submitShape', values.oneOf(...SUBMIT_SHAPES)),
  id: directive('id', values.oneOf('string', 'number')),
  code: directive('code', values.successCode),
  'message-field': directive('messageField', values.oneOf('msg', 'message')),
  'retry-after': directive('retryAfter', values.retryAfter),
  'visible-after': directive('visibleAfterMs', values.durationOr('never')),
  'not-visible-status': directive('notVisibleStatus', values.httpStatus),
  duration: directive('durationMs', values.duration),
  stuck: directive('stuckMs', values.durationOr('forever')),
  shape: directive('shape', values.oneOf(...SHAPES)),
  poll: directive('poll', values.stepsOf(values.POLL_STEPS, values.BARE_STATUS)),
  result: directive('result', values.result),
  outer: directive('outer', values.oneOf('agree', 'pending', 'failed')),
  'no-url': directive('withoutUrlPolls', values.countOrForever),
  'url-in': directive('urlIn', values.oneOf(...URL_PLACES)),
  'url-form': directive('urlForm', values.oneOf('text', 'list')),
  'error-in': directive('errorIn', values.oneOf(...ERROR_PLACES)),
  'queued-word': directive('queuedWord', values.anyText),
  'running-word': directive('runningWord', values.anyText),
  'succeeded-word': directive('succeededWord', values.anyText),
  'failed-word': directive('failedWord', values.anyText),
  progress: directive('progress', values.oneOf('percent', 'number', 'none')),
  times: directive('times', values.oneOf('s', 'ms', 'string', 'iso', 'zero')),
  video: directive('video', values.stepsOf(values.ASSET_STEPS, values.BARE_STATUS)),
  poster: directive('poster', values.stepsOf(values.ASSET_STEPS, values.BARE_STATUS)),
  'last-frame': directive('lastFrame', values.stepsOf(values.ASSET_STEPS, values.BARE_STATUS)),
  size: directive('sizeBytes', values.size),
  'poster-format': directive('posterFormat', values.oneOf('jpeg', 'png')),
  'video-type': directive('videoType', values.anyText),
  'content-encoding': directive('contentEncoding', values.anyText),
  young: directive('youngMs', values.duration),
  'young-status': directive('youngStatus', values.httpStatus),
  'asset-host': directive('assetHost', values.anyText),
  'asset-auth': directive('assetAuth', values.oneOf('none', 'key')),
  ranges: directive('ranges', values.oneOf('on', 'off', 'wrong', 'whole-206')),
  etag: directive('etag', values.oneOf('strong', 'weak', 'none', 'changing')),
  callback: directive('callback', values.callbackModes),
  'callback-delay': directive('callbackDelayMs', values.duration),
} as const satisfies Record<string, Directive>;

/** Reads directives joined by commas, such as the header holds. An empty text says nothing. */
export function parseScript(text: string): ScriptPart {
  const part: ScriptPart = {};
  const seen = new Set<string>();
  for (const piece of text.split(',')) {
    if (piece.trim() === '' && text.trim() === '') break;
    const equals = piece.indexOf('=');
    const name = piece.slice(0, equals).trim();
    const value = piece.slice(equals + 1).trim();
    if (equals < 0)
      throw new values.ScriptError(
        `expected name=value joined by commas, got ${JSON.stringify(piece.trim())}`,
      );
    if (!Object.hasOwn(DIRECTIVES, name)) {
      throw new values.ScriptError(
        `expected one of the directives ${Object.keys(DIRECTIVES).join(', ')}, got ${JSON.stringify(name)}`,
      );
    }
    if (seen.has(name)) throw new values.ScriptError(`expected ${name} at most once`);
    seen.add(name);
    try {
      Object.assign(part, DIRECTIVES[name as keyof typeof DIRECTIVES].parse(value));
    } catch (error) {
      if (!(error instanceof values.Expected)) throw error;
      throw new values.ScriptError(`${name}: expected ${error.message}, got ${JSON.stringify(value)}`);
    }
  }
  return part;
}

/** The directives inside a prompt: the text of all its `[sim: …]`, joined. Empty when there is none. */
export function scriptTextIn(prompt: string): string {
  const texts: string[] = [];
  for (const opening of prompt.matchAll(/\[\s*sim\s*:/gi)) {
    const start = opening.index + opening[0].length;
    const end = prompt.indexOf(']', start);
    if (end < 0) throw new values.ScriptError('expected ] after [sim:');
    texts.push(prompt.slice(start, end));
  }
  return texts.join(',');
}

/** The header's text: bare directives, or in the brackets that a prompt needs. */
export function scriptTextOfHeader(header: string): string {
  return /^\s*\[\s*sim\s*:/i.test(header) ? scriptTextIn(header) : header;
}
