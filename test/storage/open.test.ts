import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { InvalidInputError } from '../../src/errors.js';
import { openStorage } from '../../src/storage/open.js';

const compiled = new URL('../../dist/src/storage/open.js', import.meta.url).href;

async function described(url: string): Promise<string> {
  const storage = await openStorage(url);
  await storage.close();
  return storage.description;
}

async function problems(url: string): Promise<readonly string[]> {
  const error: unknown = await openStorage(url).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof InvalidInputError)) throw error ?? new Error('It was opened.');
  return error.problems.map(({ path, message }) => `${path}: ${message}`);
}

describe('a storage URL', () => {
  test.each([
    ['file:./archive', `directory ${resolve('archive')}`],
    ['file:archive/deep', `directory ${resolve('archive/deep')}`],
    ['file:../archive', `directory ${resolve('../archive')}`],
    ['file:/var/lib/reels', 'directory /var/lib/reels'],
    ['file:///var/lib/my%20reels', 'directory /var/lib/my reels'],
    ['FILE:./archive', `directory ${resolve('archive')}`],
    ['s3://reels', 'bucket s3://reels/'],
    ['s3://reels/a/b/', 'bucket s3://reels/a/b/'],
    [
      's3://reels/a?region=eu-central-1&endpoint=https://minio.internal:9000&forcePathStyle=true&sse=aws:kms&sseKmsKeyId=k&storageClass=STANDARD_IA&partSizeBytes=8388608&partsAtOnce=4&conditionalWrites=false&checksums=true&cacheControl=no-store',
      'bucket s3://reels/a/ at https://minio.internal:9000',
    ],
  ])('%s opens the %s', async (url, description) => {
    expect(await described(url)).toBe(description);
  });

  test.each([
    ['', /expected file:.* s3:/],
    ['./archive', /expected file:.* s3:/],
    ['https://bucket.s3.amazonaws.com', /expected file:.* s3:/],
    ['file:', /expected file:/],
    ['file://host/share', /expected file:/],
    ['file:./a?b=c', /expected file:/],
    ['s3:bucket', /expected s3:/],
    ['s3://', /name of a bucket/],
    ['s3://-bucket', /name of a bucket/],
    ['s3://b u', /name of a bucket/],
    ['s3://reels/../x', /without \. and \.\./],
    ['s3://reels?regoin=x', /STORAGE_URL regoin: expected one of region, endpoint/],
    ['s3://reels?constructor=x', /expected one of/],
    ['s3://reels?region=eu central', /expected a region/],
    ['s3://reels?endpoint=minio:9000', /expected an http or https URL/],
    ['s3://reels?endpoint=http://minio/path', /expected an http or https URL/],
    ['s3://reels?forcePathStyle=yes', /expected true or false, got "yes"/],
    ['s3://reels?sse=rot13', /expected AES256/],
    ['s3://reels?partSizeBytes=1000', /expected a whole number from 5242880/],
  ])('%j is refused', async (url, message) => {
    expect((await problems(url)).join('\n')).toMatch(message);
  });

  test('names all its problems at once', async () => {
    expect(await problems('s3://x?region=&forcePathStyle=1&what=ever')).toHaveLength(4);
  });

  test('may hold no credentials, and those are not repeated', async () => {
    const said = (await problems('s3://AKIAKEY:sesame@reels')).join('\n');
    expect(said).toMatch(/no credentials/);
    expect(said).not.toMatch(/sesame|AKIAKEY/);
    expect((await problems('ftp://user:sesame@host')).join()).not.toContain('sesame');
  });

  test('of a directory loads nothing of the AWS SDK', () => {
    const script = `
      import { createRequire, register } from 'node:module';
      import { openStorage } from ${JSON.stringify(compiled)};
      await openStorage('file:./archive');
      const loaded = Object.keys(createRequire(import.meta.url).cache).filter((file) => file.includes('@aws-sdk'));
      const before = loaded.length;
      await openStorage('s3://reels?region=eu-central-1');
      const after = Object.keys(createRequire(import.meta.url).cache).filter((file) => file.includes('@aws-sdk')).length;
      console.log(JSON.stringify({ before, isLoadedLater: after > 0 }));
    `;
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    expect(JSON.parse(out)).toEqual({ before: 0, isLoadedLater: true });
  });
});
