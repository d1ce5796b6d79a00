/**
 * What an app may ask for: the fields of `POST /runway/pro/generate` as the provider documents them, checked before
 * anything is paid. `callback_url` is reelhaul's own and not part of it (apps are told by notification).
 *
 * What the provider surely refuses is an error; what is only doubtful is a warning, kept on the generation.
 */
import { z } from 'zod';
import { didYouMean } from './did-you-mean.js';
import { inputSchema, type Input, type InputField } from './inputs.js';

const MAX_PROMPT_LENGTH = 20_000;

/** The documented ones; others may be asked for, with a warning. */
export const KNOWN_MODELS = ['gen4', 'gen4_turbo', 'gen4.5', 'gen3', 'gen2'];
const KNOWN_RATIOS = ['1280:720', '720:1280', '16:9', '9:16', '1:1'];

const motionVector = z.strictObject({
  x: z.number().optional(),
  y: z.number().optional(),
  z: z.number().optional(),
  r: z.number().optional(),
  bg_x_pan: z.number().optional(),
  bg_y_pan: z.number().optional(),
});

/** The request of one generation. Unknown keys of `options` pass through; unknown keys beside it are errors. */
export const requestSchema = z.strictObject({
  prompt: z
    .string({ error: 'expected a text' })
    .max(MAX_PROMPT_LENGTH, { message: `expected at most ${MAX_PROMPT_LENGTH} characters` })
    .refine((text) => text.trim() !== '', { message: 'expected a text that is not empty' })
    .describe('what to generate'),
  model: z
    .string()
    .trim()
    .min(1)
    .max(64)
    .default('gen4')
    .describe(`${KNOWN_MODELS.join(', ')}; another one gives a warning`),
  image: inputSchema.optional().describe('the first frame, in one of the forms of docs/inputs.md'),
  ratio: z
    .string()
    .regex(/^[1-9]\d{0,4}:[1-9]\d{0,4}$/, { message: 'expected width:height, such as 1280:720 or 16:9' })
    .default('1280:720')
    .describe(`${KNOWN_RATIOS.join(', ')}; another one gives a warning`),
  style: z.string().min(1).max(200).optional().describe('such as cinematic'),
  options: z
    .looseObject({
      seconds: z
        .union([z.literal(5), z.literal(10)], {
          error: (issue) => `expected 5 or 10, got ${JSON.stringify(issue.input)}`,
        })
        .optional()
        .describe('length of the video; 5 when it is left out'),
      motion_vector: motionVector.optional().describe('movement of the camera'),
      image_as_end_frame: z.boolean().optional().describe('image is the last frame instead of the first'),
    })
    .refine((options) => JSON.stringify(options).length <= 8192, {
      message: 'expected at most 8,192 characters of JSON',
    })
    .optional()
    .describe('at most 8,192 characters of JSON'),
  last_image: inputSchema.optional().describe('the last frame, in one of the same forms'),
});

/** A checked request, defaults filled in, as the app wrote it. */
export type WrittenRequest = z.output<typeof requestSchema>;
/** The same as a record keeps it. */
export type GenerationRequest = Omit<WrittenRequest, InputField> & {
  [field in InputField]?: Input | undefined;
};
/** A request as the app writes it. */
export type GenerationRequestInput = z.input<typeof requestSchema>;

/** What is sent where an app says no length: a gateway that fills in its own default bills by it. */
const DEFAULT_SECONDS = 5;

/** The length that is asked for and paid. */
export function secondsOf({ options }: Pick<WrittenRequest, 'options'>): number {
  return options?.seconds ?? DEFAULT_SECONDS;
}

const KNOWN_OPTIONS = ['seconds', 'motion_vector', 'image_as_end_frame'];

export interface Warning {
  readonly code: string;
  readonly message: string;
}

/** What is allowed but doubtful about a request; empty when nothing is. */
export function requestWarnings(request: WrittenRequest): Warning[] {
  const warnings: Warning[] = [];
  if (!KNOWN_MODELS.includes(request.model)) {
    warnings.push({
      code: 'model_unknown',
      message: `The model ${request.model} is not among the documented ones (${KNOWN_MODELS.join(', ')}).`,
    });
  }
  if (!KNOWN_RATIOS.includes(request.ratio)) {
    warnings.push({
      code: 'ratio_unknown',
      message: `The ratio ${request.ratio} is not among the documented ones (${KNOWN_RATIOS.join(', ')}).`,
    });
  }
  for (const name of Object.keys(request.options ?? {})) {
    const meant = KNOWN_OPTIONS.includes(name) ? null : didYouMean(name, KNOWN_OPTIONS);
    if (meant === null) continue;
    warnings.push({
      code: 'option_unknown',
      message: `The option ${name} is passed on as it is. Did you mean ${meant}?`,
    });
  }
  if (request.image === undefined) {
    warnings.push({
      code: 'image_missing',
      message: 'The provider marks a source image as required; a request with only a prompt may be refused.',
    });
  }
  return warnings;
}
