import { describe, expect, test } from '@jest/globals';
import { mp4 } from '../../src/media/mp4.js';
import { createStructureReader } from '../../src/media/structure.js';
import { mp4Faststart, mp4Fragmented, mp4MoovAtEnd } from '../storage/fixtures.js';

function check(bytes: Buffer, expectedBytes: number | null = null): void {
  const reader = createStructureReader((cursor) => mp4(cursor, expectedBytes));
  reader.write(bytes);
  reader.end();
}

/** Where a box of this type begins. */
function find(bytes: Buffer, type: string): number {
  const at = bytes.indexOf(type, 0, 'latin1') - 4;
  expect(at).toBeGreaterThanOrEqual(0);
  return at;
}

/** The box at `at`, removed. */
function without(bytes: Buffer, type: string): Buffer {
  const at = find(bytes, type);
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + bytes.readUInt32BE(at))]);
}

/** A copy, changed. */
function changed(bytes: Buffer, change: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes);
  change(copy);
  return copy;
}

/** The last box, mdat, with the size 0: to the end of the file. */
const openEnded = changed(mp4Faststart, (copy) => copy.writeUInt32BE(0, find(copy, 'mdat')));

describe('an MP4', () => {
  test('may say sizes with 64 bits', () => {
    const at = find(mp4MoovAtEnd, 'mdat');
    const size = mp4MoovAtEnd.readUInt32BE(at);
    const header = Buffer.alloc(16);
    header.writeUInt32BE(1, 0);
    header.write('mdat', 4);
    header.writeBigUInt64BE(BigInt(size + 8), 8);
    const wide = Buffer.concat([mp4MoovAtEnd.subarray(0, at), header, mp4MoovAtEnd.subarray(at + 8)]);
    expect(() => check(wide)).not.toThrow();
    for (const length of [at + 4, at + 12, at + 20, wide.length - 1]) {
      expect(() => check(wide.subarray(0, length))).toThrow('in the middle of');
    }
  });

  test('may end with a box that has no size, but every frame must be there', () => {
    expect(() => check(openEnded)).not.toThrow();
    const media = find(openEnded, 'mdat') + 8;
    for (let length = 0; length < openEnded.length; length += 1) {
      // The encoder's own notes come first in mdat; from the first frame on every byte counts.
      expect(() => check(openEnded.subarray(0, length))).toThrow(
        length >= media ? /need|begins at byte|ends at byte/ : /./,
      );
    }
  });

  test.each(['ftyp', 'moov', 'mdat'])('needs a box %s', (type) => {
    expect(() => check(without(mp4MoovAtEnd, type))).toThrow(type);
  });

  test('needs a video track', () => {
    const sound = Buffer.from(mp4Faststart.toString('latin1').replace('vide', 'soun'), 'latin1');
    expect(() => check(sound)).toThrow('no video track');
  });

  test('needs frames', () => {
    const empty = changed(mp4Faststart, (copy) => copy.writeUInt32BE(0, find(copy, 'stco') + 12));
    expect(() => check(empty)).toThrow('no frames');
  });

  test('needs the data of its last fragment', () => {
    const lastData = mp4Fragmented.lastIndexOf('mdat', undefined, 'latin1') - 4;
    expect(() => check(mp4Fragmented.subarray(0, lastData))).toThrow('last fragment');
  });

  test('may not point behind its end', () => {
    const lost = changed(mp4Faststart, (copy) => copy.writeUInt32BE(copy.length, find(copy, 'stco') + 16));
    expect(() => check(lost)).toThrow('A chunk begins at byte');
  });

  test('may not hold a table that is larger than its box', () => {
    const lying = changed(mp4Faststart, (copy) => copy.writeUInt32BE(1_000_000, find(copy, 'stco') + 12));
    expect(() => check(lying)).toThrow('too small');
  });

  test('may not hold a box that is larger than the one around it', () => {
    const spilling = changed(mp4Faststart, (copy) => copy.writeUInt32BE(5000, find(copy, 'mdia')));
    expect(() => check(spilling)).toThrow('larger than trak');
  });

  test.each([2, 7])('may not hold a box of the impossible size %d', (size) => {
    const broken = changed(mp4Faststart, (copy) => copy.writeUInt32BE(size, find(copy, 'free')));
    expect(() => check(broken)).toThrow('impossible size');
  });

  test('is refused at the first box that reaches beyond the announced length', () => {
    const reader = createStructureReader((cursor) => mp4(cursor, mp4MoovAtEnd.length - 900));
    expect(() => reader.write(mp4MoovAtEnd.subarray(0, 60))).toThrow('mdat');
  });

  test('may not be followed by something else', () => {
    expect(() => check(Buffer.concat([mp4Faststart, Buffer.from('<html>oops</html>')]))).toThrow();
    expect(() => check(Buffer.concat([mp4Faststart, Buffer.alloc(8)]))).toThrow('no box');
  });
});

describe('bytes behind an MP4 of an announced length', () => {
  const junk = [
    Buffer.alloc(3),
    Buffer.alloc(8),
    Buffer.alloc(1000),
    Buffer.from('\0\0\0\0\n<!-- served by cache -->'),
  ];

  test.each([
    ['moov at its end', mp4MoovAtEnd],
    ['moov at its begin', mp4Faststart],
  ])('are let be when the file is whole: %s', (_name, whole) => {
    for (const tail of [...junk, Buffer.from('<html>oops</html>')]) {
      const bytes = Buffer.concat([whole, tail]);
      const reader = createStructureReader((cursor) => mp4(cursor, bytes.length));
      for (const byte of bytes) reader.write(Buffer.of(byte));
      reader.end();
      expect(reader.trailingBytes()).toBe(tail.length);
    }
  });

  test('are let be behind fragments only when they are zeros', () => {
    const check = (tail: Buffer) => {
      const bytes = Buffer.concat([mp4Fragmented, tail]);
      const reader = createStructureReader((cursor) => mp4(cursor, bytes.length));
      reader.write(bytes);
      reader.end();
    };
    expect(() => check(Buffer.alloc(12))).not.toThrow();
    expect(() => check(Buffer.from('\0\0\x20\0moof'))).toThrow();
    expect(() => check(Buffer.from('\0\0\x20'))).toThrow();
  });

  test('make no file whole that is cut, wherever it is cut', () => {
    for (const whole of [mp4MoovAtEnd, mp4Faststart]) {
      for (let length = 0; length < whole.length - 16; length += 7) {
        const bytes = Buffer.concat([whole.subarray(0, length), Buffer.alloc(16)]);
        expect(() => check(bytes, bytes.length)).toThrow();
        expect(() => check(whole.subarray(0, length), length)).toThrow();
      }
    }
  });
});
