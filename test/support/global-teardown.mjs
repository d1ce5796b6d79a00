export default async function teardown() {
  await globalThis.reelhaulTestRedis?.stop();
  for (const line of globalThis.reelhaulSkipped ?? []) process.stderr.write(`${line}\n`);
}
