// The panel of how the service fares, from its metrics; asks only while it is seen.

import { sparkline } from "./chart.js";
import { element } from "./element.js";
import { Reading, grown, quantile } from "./metrics.js";
import { percent } from "./words.js";

const EVERY_MS = 2_000;
const KEPT = 31; // readings: a minute
const PHASES = ["decode", "queue", "infer"];
const CLASSES = { "128x128": "up to 128²", "512x512": "up to 512²", "1024x1024": "up to 1024²", larger: "larger" };

/** Keep the panel up to date while it is open and the page is seen. */
export function watchLive(panel, api) {
  const readings = [];
  let timer = null;
  let abort = new AbortController();

  async function look() {
    abort = new AbortController();
    try {
      take(readings, new Reading(await api.metrics(abort.signal), performance.now() / 1000));
      show(panel, readings);
    } catch (problem) {
      if (!abort.signal.aborted) tell(panel, problem);
    }
    if (!abort.signal.aborted) timer = setTimeout(look, EVERY_MS);
  }

  function turn() {
    abort.abort();
    clearTimeout(timer);
    panel.dataset.running = panel.open && !document.hidden;
    readings.length = 0; // a pause is no part of the last minute
    if (panel.open && !document.hidden) look();
  }

  panel.addEventListener("toggle", turn);
  document.addEventListener("visibilitychange", turn);
}

function take(readings, reading) {
  const before = readings.at(-1);
  const restarted = before && grown(before, reading, "anypool_runs_total") < 0;
  if (restarted) readings.length = 0;
  readings.push(reading);
  if (readings.length > KEPT) readings.shift();
}

function tell(panel, { title, message }) {
  const notice = panel.querySelector(".notice");
  notice.hidden = false;
  notice.textContent = `${title}. ${message}`;
}

function show(panel, readings) {
  panel.querySelector(".notice").hidden = true;
  const [first, last] = [readings[0], readings.at(-1)];
  const rates = readings.slice(1).map((now, at) => rate(readings[at], now));
  const runs = grown(first, last, "anypool_runs_total");
  const images = grown(first, last, "anypool_run_images_sum");
  const mixed = ["mixed", "pinned"].reduce((sum, kind) => sum + grown(first, last, "anypool_runs_total", { kind }), 0);
  panel.querySelector("dl").replaceChildren(
    figure("Images a second", rates.length ? rates.at(-1).toFixed(1) : "…", sparkline(rates)),
    figure("Queue, megapixels", (last.sum("anypool_admitted_pixels") / 1e6).toFixed(1)),
    figure("Images in a run", runs ? (images / runs).toFixed(1) : "–"),
    figure("Runs of mixed sizes", runs ? percent(mixed / runs) : "–"),
  );
  panel.querySelector(".table").replaceChildren(times(first, last));
}

function rate(before, now) {
  return grown(before, now, "anypool_images_total", { outcome: "ok" }) / (now.seconds - before.seconds);
}

function figure(name, value, ...more) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value, ...more));
}

function times(first, last) {
  const heads = ["Image", ...PHASES];
  const rows = Object.entries(CLASSES).map(([pixels, words]) =>
    element("tr", {}, element("th", { scope: "row" }, words), ...PHASES.map((phase) => time(first, last, { phase, pixels }))));
  return element("table", {},
    element("caption", {}, "Milliseconds in the last minute, p50 / p99"),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows));
}

function time(first, last, labels) {
  const of = (q) => quantile(first, last, "anypool_phase_seconds", labels, q);
  const words = of(0.5) === null ? "–" : [of(0.5), of(0.99)].map(milliseconds).join(" / ");
  return element("td", {}, words);
}

function milliseconds(seconds) {
  const digits = seconds < 0.01 ? 1 : 0;
  return (1000 * seconds).toFixed(digits);
}
