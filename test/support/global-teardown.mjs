export default async function teardown() {
  await globalThis.reelhaulTestRedis?.stop();
}
