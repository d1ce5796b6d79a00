/** The limits with real workers and a provider that keeps books: caps, outages, refusals, 429s. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/config.js';
import { createTestbed, image, type Testbed, type TestbedOptions } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

const setUp = async (environment: Record<string, string>, simulator: TestbedOptions['simulator'] = {}) => {
  bed = await createTestbed({ environment, simulator });
};
const totals = () => bed.simulator.ledger().totals;
const many = (count: number, script = '', tenant = 'default') =>
  Array.from({ length: count }, (_, i) => ({
    request: { prompt: `${tenant} ${i} ${script === '' ? '' : `[sim: ${script}]`}`, image },
    tenant,
  }));

async function enqueueAll(items: ReturnType<typeof many>): Promise<string[]> {
  const results = await bed.reelhaul.enqueueMany(items);
  return results.map((result) => {
    if (!result.ok) throw result.error;
    return result.generation.id;
  });
}
const ends = (ids: readonly string[]) =>
  Promise.all(ids.map(async (id) => (await bed.reelhaul.waitFor(id)).state));

describe('the cap', () => {
  test('holds over all processes, and costs nobody the video', async () => {
    await setUp({ MAX_IN_FLIGHT: '4' });
    const ids = await enqueueAll(many(24, 'duration=60ms'));
    await bed.work();
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect(totals().maxTasksInFlight).toBeLessThanOrEqual(4);
    expect(totals().submits).toBe(24);
    expect(await bed.reelhaul.limits()).toMatchObject({ inFlight: 0, inLine: 0, maxInFlight: 4 });
  });

  test('of a worker that starts later holds for what comes next, lower and higher, and touches nothing in flight', async () => {
    await setUp({ MAX_IN_FLIGHT: '3' });
    await bed.work();
    const starts = async (MAX_IN_FLIGHT: string) =>
      (await bed.work({ config: readConfig({ ...bed.environment, MAX_IN_FLIGHT }) })).close();
    const first = await enqueueAll(many(3, 'duration=2s'));
    await Promise.all(first.map((id) => bed.reaches(id, 'generating')));
    await starts('1');
    const narrow = await enqueueAll(many(3));
    expect(new Set(await ends([...first, ...narrow]))).toEqual(new Set(['succeeded']));
    const { tasks } = bed.simulator.ledger();
    const overlap = tasks.filter(({ createdAt }, i) =>
      tasks.slice(0, i).some((before) => (before.finishesAt ?? Infinity) > createdAt),
    );
    expect(overlap.map(({ submitSeq }) => submitSeq)).toEqual(tasks.slice(1, 3).map((t) => t.submitSeq));
    await starts('4');
    const wide = await enqueueAll(many(6, 'duration=1h'));
    await until(async () => (await bed.reelhaul.count(['generating']))['generating'] === 4, 'four at once');
    expect(await bed.reelhaul.limits()).toMatchObject({ inFlight: 4, inLine: wide.length - 4 });
  });

  test('counts a canceled task as long as it may live, and a failed one no longer', async () => {
    await setUp({ MAX_IN_FLIGHT: '1', GENERATION_DEADLINE_MS: '1500' });
    await bed.work();
    const canceled = await bed.enqueue('canceled [sim: duration=1200ms]');
    await bed.reaches(canceled.id, 'generating');
    const next = await bed.enqueue('next [sim: result=failed]');
    const last = await bed.enqueue('last');
    await bed.reelhaul.cancel(canceled.id);
    expect((await bed.reelhaul.waitFor(next.id)).state).toBe('failed');
    expect((await bed.reelhaul.waitFor(last.id)).state).toBe('succeeded');
    expect(totals().maxTasksInFlight).toBe(1);
  });

  test('lets no deadline pass unseen in the line', async () => {
    await setUp({ MAX_IN_FLIGHT: '1' });
    await bed.work();
    const endless = await bed.enqueue('endless [sim: duration=1h]');
    await bed.reaches(endless.id, 'generating');
    const { id } = await bed.enqueue('in a hurry', { deadlineMs: 300 });
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({
      state: 'failed',
      charge: 'none',
      failure: { code: 'deadline_exceeded', stage: 'submit' },
    });
  });

  test('an unconfirmed submit holds its slot until nobody would wait for its task any longer', async () => {
    await setUp({ MAX_IN_FLIGHT: '1', GENERATION_DEADLINE_MS: '1500', UNCONFIRMED_WAIT_MS: '60000' });
    await bed.work();
    const doubtful = await bed.enqueue('doubtful [sim: submit=502-after, duration=1200ms]');
    await bed.reaches(doubtful.id, 'unconfirmed');
    const next = await bed.enqueue('next');
    expect((await bed.reelhaul.waitFor(next.id)).state).toBe('succeeded');
    expect(totals().maxTasksInFlight).toBe(1);
  });

  test('an expired task holds its slot until the provider says that it is over', async () => {
    await setUp({ MAX_IN_FLIGHT: '1', GENERATION_DEADLINE_MS: '200', LATE_CHECK_INTERVAL_MS: '50' });
    await bed.work();
    const late = await bed.enqueue('late [sim: duration=1500ms]');
    await bed.reaches(late.id, 'expired');
    const next = await bed.enqueue('next');
    expect((await bed.reelhaul.waitFor(next.id)).state).toBe('succeeded');
    expect(totals().maxTasksInFlight).toBe(1);
    expect(await bed.reaches(late.id, 'succeeded')).toMatchObject({ late: true });
  });
});

describe('while the provider is away', () => {
  const quick = { BREAKER_FAILURES: '3', BREAKER_PROBE_MS: '300', SUBMIT_ATTEMPTS: '4' };

  test.each(['refuse', '503'] as const)(
    'a few probes go out, nobody uses up its tries, and all goes on (%s)',
    async (mode) => {
      await setUp({ ...quick, SUBMIT_5XX_POLICY: 'retry', SUBMIT_CONCURRENCY: '2' });
      await bed.simulator.startOutage({ mode, durationMs: 3_600_000 });
      const ids = await enqueueAll(many(15));
      await bed.work();
      const probes = async () => (await bed.reelhaul.limits()).breaker.submit.probes;
      await until(async () => (await probes()) >= 4, 'four probes');
      expect(totals().submits).toBeLessThanOrEqual(10);
      await bed.simulator.endOutage();
      expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
      expect((await bed.reelhaul.limits()).breaker.submit.openAt).toBeNull();
    },
  );

  test('a probe is a free call first: no paid one becomes unconfirmed by looking', async () => {
    await setUp({ ...quick, SUBMIT_CONCURRENCY: '1', UNCONFIRMED_WAIT_MS: '60000' });
    await bed.simulator.startOutage({ mode: '502', durationMs: 3_600_000 });
    const ids = await enqueueAll(many(20));
    await bed.work();
    const probes = async () => (await bed.reelhaul.limits()).breaker.submit.probes;
    await until(async () => (await probes()) >= 3, 'three probes');
    await bed.simulator.endOutage();
    await until(
      async () => (await bed.reelhaul.count(['succeeded']))['succeeded'] === ids.length - 3,
      'all others to succeed',
    );
    expect(await bed.reelhaul.count(['unconfirmed'])).toEqual({ unconfirmed: 3 });
  });

  test('a 429 between failures says that somebody is there', async () => {
    await setUp({ ...quick, BREAKER_FAILURES: '2', SUBMIT_5XX_POLICY: 'retry' });
    await bed.work();
    await bed.enqueue('busy [sim: submit=503>429>503>429*forever, retry-after=0]');
    await until(() => totals().submits >= 4, 'four submits');
    expect((await bed.reelhaul.limits()).breaker.submit.openAt).toBeNull();
  });

  test('looking takes its calls from the budget of all', async () => {
    await setUp({ PROVIDER_RATE_MAX: '2', PROVIDER_RATE_WINDOW_MS: '3600000' });
    await bed.redis.hset(`${bed.prefix}:gate:submit`, { openAt: 1, probes: 0, awayProbeAt: 1 });
    await bed.enqueue('the one that looks');
    await bed.work();
    await until(
      () => bed.redis.hexists(`${bed.prefix}:gate:rate`, 'secondUntil').then(Boolean),
      'the submit to wait',
    );
    expect(totals()).toMatchObject({ polls: 1, submits: 0 });
  });

  test('polls stop as well, deadlines still end our patience, and nothing is failed', async () => {
    await setUp({ ...quick, GENERATION_DEADLINE_MS: '60000' });
    await bed.work();
    const ids = await enqueueAll(many(10, 'duration=5s'));
    await Promise.all(ids.map((id) => bed.reaches(id, 'generating')));
    const impatient = await bed.enqueue('impatient [sim: duration=60s]', { deadlineMs: 1500 });
    await bed.reaches(impatient.id, 'generating');
    await bed.simulator.startOutage({ mode: 'reset', durationMs: 3_600_000 });
    await until(async () => (await bed.reelhaul.limits()).breaker.poll.probes >= 3, 'three probes');
    await bed.reaches(impatient.id, 'expired');
    await bed.simulator.endOutage();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
  });
});

describe('while a host of assets is away', () => {
  const settings = {
    BREAKER_FAILURES: '3',
    BREAKER_PROBE_MS: '200',
    ARCHIVE_ATTEMPTS: '3',
    ARCHIVE_CONCURRENCY: '2',
  };

  test('videos wait for it without using up their tries', async () => {
    await setUp(settings);
    await bed.work({ stages: ['submit', 'poll'] });
    const ids = await enqueueAll(many(12));
    await Promise.all(ids.map((id) => bed.reaches(id, 'archiving')));
    await bed.simulator.startOutage({ mode: '503', durationMs: 3_600_000 });
    await bed.work({ stages: ['archive'] });
    const host = new URL(bed.simulator.url).host;
    const probes = async () =>
      Number(await bed.redis.hget(`${bed.prefix}:gate:host:asset@${host}`, 'probes'));
    await until(async () => (await probes()) >= 8, 'eight probes');
    await bed.simulator.endOutage();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
  });

  test('for too long, they fail in the end', async () => {
    await setUp({ ...settings, ARCHIVE_OUTAGE_MS: '0' });
    await bed.work();
    const { id } = await bed.enqueue('never [sim: video=503*forever]');
    expect((await bed.reelhaul.waitFor(id)).failure?.code).toBe('archive_attempts_exhausted');
  });
});

describe('orders of one tenant that the provider always forbids', () => {
  // Ten of them: test/flows/forbidden.test.ts.
  test('(30 of them) keep those of others waiting no longer than a probe', async () => {
    await setUp({ REFUSED_PROBE_MS: '50' });
    const bad = await enqueueAll(many(30, 'submit=403*forever', 'bad'));
    await bed.work();
    await until(async () => (await bed.reelhaul.limits()).refused, 'the refusal');
    const good = await enqueueAll(many(5, '', 'good'));
    expect(new Set(await ends(good))).toEqual(new Set(['succeeded']));
    expect(new Set(await ends(bad))).toEqual(new Set(['failed']));
    expect(totals().submits).toBeLessThanOrEqual(good.length + 5 * bad.length);
  });
});

describe('the fresh poll for a dead link', () => {
  test('holds with all other polls after a 429, and waiting costs no try', async () => {
    await setUp({ ARCHIVE_ATTEMPTS: '2' });
    const [id = ''] = await enqueueAll(
      many(1, 'duration=0, video=404*forever, poll=ok>429*forever, retry-after=1h'),
    );
    await bed.work();
    await until(async () => (await bed.reelhaul.limits()).holdMs.poll > 0, 'the hold');
    await until(
      async () =>
        (await bed.redis.zcount(
          `${bed.prefix}:archive:delayed`,
          (Date.now() + 1_800_000) * 0x1000,
          '+inf',
        )) === 1,
      'the archive job to wait for it',
    );
    expect((await bed.reelhaul.get(id)).state).toBe('archiving');
    expect(totals().polls).toBe(2);
  });
});

describe('an operator', () => {
  test('says that the key is well again, and nobody waits for the next probe', async () => {
    await setUp({ REFUSED_PROBE_MS: '3600000' });
    const refused = await bed.enqueue('refused [sim: submit=401]');
    await bed.work();
    await until(async () => (await bed.reelhaul.limits()).refused, 'the refusal');
    const ids = [refused.id, ...(await enqueueAll(many(12)))];
    expect(totals().submits).toBe(1);
    await bed.reelhaul.resume();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect(await bed.reelhaul.limits()).toMatchObject({ refused: false });
  });
});

describe('a provider that allows so many calls per window', () => {
  test('is asked for no more by all processes together, submits and polls', async () => {
    const limit = { max: 40, windowMs: 1000, polls: true };
    await setUp({ PROVIDER_RATE_MAX: '36', PROVIDER_RATE_WINDOW_MS: '1000' }, { rateLimit: limit });
    const ids = await enqueueAll(many(40));
    await bed.work();
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect(totals()).toMatchObject({ rateLimited: 0, rateLimitedPolls: 0 });
    expect(totals().maxCallsInWindow).toBeLessThanOrEqual(40);
  });

  test('and does not say so is found out, and costs nobody the video', async () => {
    await setUp({}, { rateLimit: { max: 40, windowMs: 500, polls: true } });
    const ids = await enqueueAll(many(40));
    await bed.work();
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
    expect(totals().tasksCreated).toBe(40);
  });
});

describe('a 429', () => {
  test.each([
    ['at the deadline', { GENERATION_DEADLINE_MS: '1' }],
    ['at a late check', { GENERATION_DEADLINE_MS: '1', LATE_CHECK_INTERVAL_MS: '50' }],
  ])('slows all down %s as well', async (_, environment) => {
    await setUp(environment);
    await bed.work();
    const script = 'LATE' in environment ? 'poll=ok>429' : 'poll=429';
    const [id = ''] = await enqueueAll(many(1, `duration=1h, ${script}, retry-after=1h`));
    await bed.reaches(id, 'expired');
    await until(async () => (await bed.reelhaul.limits()).holdMs.poll > 0, 'the hold');
    expect((await bed.reelhaul.limits()).slowedTo).not.toBeNull();
  });
});

describe('those that wait for their call of the budget', () => {
  const slow = { PROVIDER_RATE_MAX: '2', PROVIDER_RATE_WINDOW_MS: '1000', REFUSED_PROBE_MS: '3600000' };
  const atRest = (stage: 'submit' | 'poll') =>
    until(async () => (await bed.redis.llen(`${bed.prefix}:${stage}:active`)) === 0, 'all jobs to rest');

  test('do not go out once the key is refused', async () => {
    await setUp(slow);
    const ids = await enqueueAll([...many(1, 'submit=401'), ...many(7)]);
    await bed.work();
    await until(async () => (await bed.reelhaul.limits()).refused, 'the refusal');
    await atRest('submit');
    expect(totals().submits).toBe(1);
    await bed.reelhaul.resume();
    expect(new Set(await ends(ids))).toEqual(new Set(['succeeded']));
  });

  test('do not ask for their tasks while polls are held', async () => {
    await setUp({ ...slow, PROVIDER_RATE_MAX: '20' });
    const submits = await bed.work({ stages: ['submit'] });
    const ids = await enqueueAll(many(8, 'poll=429, retry-after=1h'));
    await Promise.all(ids.map((id) => bed.reaches(id, 'generating')));
    await submits.close();
    // As a worker with a submit stage would write it when it starts.
    await bed.redis.hset(`${bed.prefix}:gate:rate`, 'max', slow.PROVIDER_RATE_MAX);
    await bed.work({ config: readConfig({ ...bed.environment, POLL_CONCURRENCY: '4' }), stages: ['poll'] });
    await until(async () => (await bed.reelhaul.limits()).holdMs.poll > 0, 'the hold');
    await until(async () => (await bed.reelhaul.limits()).slowedTo !== null, 'the slower pace');
    await atRest('poll');
    expect(totals().polls).toBe(1);
  });

  test('are none of those that the budget has no room for: they leave no call unused', async () => {
    const hourly = { PROVIDER_RATE_MAX: '1', PROVIDER_RATE_WINDOW_MS: '3600000' };
    await setUp({ ...hourly, PRICES: '{"*":1}', BUDGET_PER_DAY: '0', OVER_BUDGET: 'fail' });
    const ids = await enqueueAll(many(5));
    await bed.work();
    expect(new Set(await ends(ids))).toEqual(new Set(['failed']));
  });
});
