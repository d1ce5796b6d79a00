import { describe, expect, test } from '@jest/globals';
import { InvalidInputError } from '../../src/errors.js';
import { isPublicAddress, parseAllowedHosts } from '../../src/outbound/address-rules.js';

describe('an allowed host', () => {
  test.each<[string, string, number, boolean]>([
    ['simulator', 'simulator', 80, true],
    ['simulator', 'SIMULATOR', 8080, true],
    ['Simulator', 'simulator.', 8080, true],
    ['simulator', 'other', 80, false],
    ['simulator', 'simulator.example', 80, false],
    ['example.com', 'evil-example.com', 80, false],
    ['example.com', 'cdn.example.com', 80, false],
    ['cdn.internal:8080', 'cdn.internal', 8080, true],
    ['cdn.internal:8080', 'cdn.internal', 80, false],
    ['10.0.0.5', '10.0.0.5', 80, false],
  ])('%s covers the name %s at port %d: %s', (entry, name, port, expected) => {
    expect(parseAllowedHosts([entry]).coversName(name, port)).toBe(expected);
  });

  test.each<[string, string, number, boolean]>([
    ['10.0.0.5', '10.0.0.5', 80, true],
    ['10.0.0.5', '10.0.0.6', 80, false],
    ['10.0.0.5:8080', '10.0.0.5', 8080, true],
    ['10.0.0.5:8080', '10.0.0.5', 80, false],
    ['10.0.0.5', '::ffff:10.0.0.5', 80, true],
    ['10.0.0.5', '::ffff:a00:5', 80, true],
    ['10.0.0.0/8', '10.255.0.1', 80, true],
    ['10.0.0.0/8', '::ffff:10.255.0.1', 80, true],
    ['10.0.0.0/8', '11.0.0.1', 80, false],
    ['10.0.0.0/8', '::1', 80, false],
    ['0.0.0.0/0', '127.0.0.1', 80, true],
    ['192.168.1.128/25', '192.168.1.127', 80, false],
    ['::1', '::1', 80, true],
    ['::1', '0:0:0:0:0:0:0:1', 80, true],
    ['[::1]', '::1', 9000, true],
    ['[::1]:8080', '::1', 8080, true],
    ['[::1]:8080', '::1', 80, false],
    ['fd00::/8', 'fd12:3456::1', 80, true],
    ['FD00::/8', 'fe80::1', 80, false],
    ['simulator', '10.0.0.5', 80, false],
  ])('%s covers the address %s at port %d: %s', (entry, address, port, expected) => {
    expect(parseAllowedHosts([entry]).coversAddress(address, port)).toBe(expected);
  });

  test('is refused when it is no host, naming every bad entry', () => {
    const bad = [
      'http://x',
      'x:0',
      'x:99999',
      'x:',
      '10.0.0.0/33',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      'fd00::/129',
      'x/8',
      '[10.0.0.1]',
      '[::1',
      '::1:zz',
      '*.example.com',
      'a b',
      '',
      '-x',
    ];
    const error = (() => {
      try {
        parseAllowedHosts(['good', ...bad], 'ARCHIVE_ALLOW_HOSTS');
        return null;
      } catch (error) {
        return error as InvalidInputError;
      }
    })();
    expect(error).toBeInstanceOf(InvalidInputError);
    expect(error?.problems.map(({ message }) => message.replace(/^.* got /, ''))).toEqual(
      bad.map((entry) => JSON.stringify(entry)),
    );
  });
});

describe('a public address', () => {
  test.each([
    '8.8.8.8',
    '1.1.1.1',
    '93.184.215.14',
    '172.15.0.1',
    '172.32.0.1',
    '100.128.0.1',
    '223.255.255.255',
    '2606:4700::1111',
    '2a00:1450:4001:80b::200e',
  ])('is %s', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });

  test.each([
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '100.64.0.1',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.8',
    '192.168.0.1',
    '198.18.0.1',
    '203.0.113.9',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '::ffff:8.8.8.8',
    '64:ff9b::10.0.0.1',
    '64:ff9b::7f00:1',
    '64:ff9b::a9fe:a9fe',
    '64:ff9b::',
    '64:ff9b:1::8.8.8.8',
    'fc00::1',
    'fd12::1',
    'fe80::1',
    'fec0::1',
    'ff02::1',
    '2001:db8::1',
    '2001::1',
    '2002:7f00:1::',
    'localhost',
    '',
  ])('is not %s', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });
});
