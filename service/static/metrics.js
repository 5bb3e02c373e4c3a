// Prometheus metrics: their text, and what follows from two readings of it.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export class Reading {
  #samples = new Map();

  constructor(text, seconds) {
    this.seconds = seconds; // when it was read
    for (const row of text.split("\n")) {
      const found = LINE.exec(row);
      if (found !== null) this.#keep(found);
    }
  }

  /** The sum of all samples of a name that have those labels. */
  sum(name, labels = {}) {
    return this.#having(name, labels).reduce((total, { value }) => total + value, 0);
  }

  /** Of a histogram: [upper bound, how many up to it], ascending; summed over all other labels. */
  buckets(name, labels = {}) {
    const counts = new Map();
    for (const { labels: { le }, value } of this.#having(`${name}_bucket`, labels)) {
      const bound = le === "+Inf" ? Infinity : Number(le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
    return [...counts].sort(([a], [b]) => a - b);
  }

  #keep([, name, texts = "", value]) {
    const labels = Object.fromEntries([...texts.matchAll(LABEL)].map(([, key, text]) => [key, text]));
    if (!this.#samples.has(name)) this.#samples.set(name, []);
    this.#samples.get(name).push({ labels, value: Number(value) });
  }

  #having(name, wanted) {
    const has = ({ labels }) => Object.entries(wanted).every(([key, text]) => labels[key] === text);
    return (this.#samples.get(name) ?? []).filter(has);
  }
}

/** What came to a sum between two readings. */
export function grown(before, now, name, labels) {
  return now.sum(name, labels) - before.sum(name, labels);
}

/** The value that the part `q` of what came between two readings stays below; null of nothing. */
export function quantile(before, now, name, labels, q) {
  const earlier = new Map(before.buckets(name, labels));
  const buckets = now.buckets(name, labels).map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= q * total) return bound === Infinity ? low : low + ((bound - low) * (q * total - below)) / (count - below);
    [low, below] = [bound, count];
  }
  return low;
}
