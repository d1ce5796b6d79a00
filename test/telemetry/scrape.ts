/** Reads what Prometheus would read. */

export interface Scrape {
  /** Every series name, with `_bucket`, `_sum` and `_count` for histograms, also those without a value yet. */
  readonly names: ReadonlySet<string>;
  /** The value of a series; the labels that are given must fit. Sums over all that do; undefined when none does. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

export function readScrape(text: string): Scrape {
  const names = new Set<string>();
  const samples: { name: string; labels: Record<string, string>; value: number }[] = [];
  for (const line of text.split('\n')) {
    const [, declared, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (declared !== undefined) {
      if (type === 'histogram')
        for (const end of ['_bucket', '_sum', '_count']) names.add(`${declared}${end}`);
      else names.add(declared);
    }
    const [, name, labelText = '', value] = /^([a-z]\w*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined) continue;
    const labels = Object.fromEntries(
      [...labelText.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, text_]) => [label!, text_!]),
    );
    samples.push({ name, labels, value: Number(value) });
  }
  return {
    names,
    value(name, labels = {}) {
      const found = samples.filter(
        (sample) =>
          sample.name === name &&
          Object.entries(labels).every(([label, text_]) => sample.labels[label] === text_),
      );
      return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0);
    },
  };
}

export async function scrape(url: string): Promise<Scrape> {
  const answer = await fetch(`${url}/metrics`);
  if (answer.status !== 200) throw new Error(`/metrics answered ${answer.status}`);
  return readScrape(await answer.text());
}
