import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { InvalidInputError } from '../../src/errors.js';
import {
  assertKey,
  assetKeyBase,
  DEFAULT_KEY_TEMPLATE,
  folderFor,
  keyTemplateProblems,
  manifestKey,
  type KeyFields,
} from '../../src/storage/paths.js';

const generationId = '01890a5d-ac96-774b-bcce-b302099a8057';
const fields: KeyFields = {
  generationId,
  createdAt: Date.UTC(2026, 0, 31, 23, 59, 59),
  tenant: 'acme',
  metadata: { project: 'Größe XL', count: 7, list: [1] },
};

describe('object names', () => {
  test('follow the template', () => {
    expect(folderFor(DEFAULT_KEY_TEMPLATE, fields)).toBe(`2026/01/31/${generationId}`);
    expect(folderFor('{tenant}/{metadata.project}/v{metadata.count}-{generationId}', fields)).toBe(
      `acme/Größe-XL/v7-${generationId}`,
    );
  });

  test('stand in one folder per generation', () => {
    const folder = folderFor('{generationId}', fields);
    expect((['video', 'poster', 'lastFrame'] as const).map((asset) => assetKeyBase(folder, asset))).toEqual([
      `${generationId}/video`,
      `${generationId}/poster`,
      `${generationId}/last-frame`,
    ]);
    expect(manifestKey(folder)).toBe(`${generationId}/manifest.json`);
  });

  test.each([
    ['a missing tenant', '{tenant}/{generationId}', { tenant: null }, '_'],
    ['a way up', '{tenant}/{generationId}', { tenant: '../../etc' }, '--..-etc'],
    ['dots', '{tenant}/{generationId}', { tenant: '..' }, '-'],
    ['an absolute path', '{tenant}/{generationId}', { tenant: '/etc' }, '-etc'],
    ['a hidden file', '{tenant}/{generationId}', { tenant: '.git' }, '-git'],
    ['a zero byte', '{tenant}/{generationId}', { tenant: 'a\0b' }, 'a-b'],
    ['a backslash', '{tenant}/{generationId}', { tenant: '..\\x' }, '--x'],
    ['a field that is no text', '{metadata.list}/{generationId}', {}, '_'],
    ['a field that is not there', '{metadata.nothing}/{generationId}', {}, '_'],
    ['a field of every object', '{metadata.constructor}/{generationId}', {}, '_'],
    ['braces in a value', '{tenant}/{generationId}', { tenant: '{generationId}' }, '-generationId-'],
  ])('make %s harmless', (_word, template, change, expected) => {
    expect(folderFor(template, { ...fields, ...change })).toBe(`${expected}/${generationId}`);
  });

  test('stay where they belong, whatever the values', () => {
    const value = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.constantFrom('..', '.', '', '/', '\\', 'a/../..', '💥'.repeat(200)),
    );
    fc.assert(
      fc.property(value, value, (tenant, project) => {
        const folder = folderFor('x/{tenant}/{metadata.project}/{generationId}', {
          ...fields,
          tenant,
          metadata: { project },
        });
        const parts = folder.split('/');
        expect(parts).toHaveLength(4);
        expect(parts[0]).toBe('x');
        expect(parts[3]).toBe(generationId);
        for (const part of parts) {
          expect(part).not.toMatch(/^\.|^$|[\\\0\n]/);
          expect(Buffer.byteLength(part)).toBeLessThanOrEqual(255);
        }
        assertKey(`${folder}/video.mp4`);
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    ['{yyyy}/{mm}', /\{generationId\}/],
    ['', /\{generationId\}/],
    ['{generationId}/{hour}', /\{hour\}/],
    ['{generationId}/{metadata}', /\{metadata\}/],
    ['{generationId}/{metadata.a.b}', /\{metadata\.a\.b\}/],
    ['/{generationId}', /relative path/],
    ['{generationId}/', /relative path/],
    ['a//{generationId}', /relative path/],
    ['../{generationId}', /relative path/],
    ['a/../{generationId}', /relative path/],
    ['./{generationId}', /relative path/],
    ['.hidden/{generationId}', /dot/],
    ['a\\{generationId}', /letters, digits/],
    ['a{b/{generationId}', /letters, digits/],
    ['a\n/{generationId}', /letters, digits/],
  ])('refuse the template %j', (template, message) => {
    const problems = keyTemplateProblems(template, 'ARCHIVE_KEY_TEMPLATE');
    expect(problems.map((problem) => problem.message).join('\n')).toMatch(message);
    expect(problems.every(({ path }) => path === 'ARCHIVE_KEY_TEMPLATE')).toBe(true);
    expect(() => folderFor(template, fields)).toThrow(InvalidInputError);
  });

  test.each([
    '{yyyy}/{tenant}_{metadata.title}_{generationId}',
    '{tenant}{metadata.title}{metadata.title}{generationId}',
    '{tenant}/{metadata.title}/{tenant}/{metadata.title}/{tenant}/{generationId}',
  ])('cut values by bytes until %s fits, and keep the id whole', (template) => {
    for (const letter of ['東', '𝔸', 'ü', 'a']) {
      const long = letter.repeat(100);
      const folder = folderFor(template, { ...fields, tenant: long, metadata: { title: long } });
      expect(folder).toContain(generationId);
      expect(folder).toContain(letter.normalize('NFC').repeat(3));
      for (const part of folder.split('/')) expect(Buffer.byteLength(part)).toBeLessThanOrEqual(255);
      assertKey(`${folder}/last-frame.webp`);
    }
  });

  test('refuse a template that is too long whatever the values', () => {
    expect(keyTemplateProblems(`${'a'.repeat(230)}{generationId}`)).toHaveLength(1);
    expect(keyTemplateProblems(`${'a/'.repeat(500)}{generationId}`)).toHaveLength(1);
  });

  test('find nothing wrong with good templates', () => {
    for (const template of [
      DEFAULT_KEY_TEMPLATE,
      '{generationId}',
      'reels/{tenant}={metadata.a_b-c}/{generationId} v1.0x',
    ]) {
      expect(keyTemplateProblems(template)).toEqual([]);
    }
  });
});
