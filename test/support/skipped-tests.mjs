/**
 * A Jest reporter that counts what was skipped, by the program that is missing. The global teardown prints the lines,
 * since reporters come before Jest's own summary.
 */
const MARK = /\(needs ([^()]+)\)/;

/** @returns one line for each missing program, and the names of tests that are skipped for another reason */
function skippedLines(files, embeddedRedis) {
  const counts = new Map();
  const others = [];
  for (const { testResults } of files) {
    for (const { status, fullName } of testResults) {
      if (status !== 'pending') continue;
      // The one guard without a mark is `realRedis`.
      const program = MARK.exec(fullName)?.[1] ?? (embeddedRedis ? 'redis-server' : null);
      if (program === null) others.push(fullName);
      else counts.set(program, (counts.get(program) ?? 0) + 1);
    }
  }
  return [
    ...[...counts].map(([program, count]) => `skipped without ${program}: ${count}`),
    ...others.map((name) => `skipped: ${name}`),
  ];
}

export default class SkippedTests {
  constructor({ testNamePattern }) {
    // With -t, what does not match is pending as well.
    this.whole = !testNamePattern;
  }

  onRunComplete(_contexts, { testResults }) {
    if (!this.whole) return;
    globalThis.reelhaulSkipped = skippedLines(testResults, process.env.TEST_REDIS_KIND === 'embedded');
  }
}
