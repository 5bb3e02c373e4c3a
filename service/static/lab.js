// One photo at a row of sizes, by each model: what size and pooling make of it.

import { lineChart, marker } from "./chart.js";
import { element } from "./element.js";
import { progressOf } from "./progress.js";
import { percent } from "./words.js";

const SIZES = [64, 96, 128, 192, 256, 320, 448, 640, 832, 1024];
const NATIVE = "native";
const TOP = 100; // classes an answer can have

export class Lab {
  #root = document.querySelector("#lab");
  #select = document.querySelector("#lab-photo");
  #outcome = this.#root.querySelector(".outcome");
  #progress = progressOf(this.#root.querySelector(".progress"), () => this.#abort.abort());
  #abort = new AbortController();
  #photos = [];
  #api;
  #models;

  constructor(api, models) {
    this.#api = api;
    this.#models = models;
    this.#root.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      this.#compare(this.#photos[this.#select.selectedIndex]);
    };
  }

  /** Let the visitor choose among those photos. */
  offer(photos) {
    const before = this.#photos[this.#select.selectedIndex];
    this.#photos = photos;
    this.#select.replaceChildren(...photos.map(({ name }) => new Option(name)));
    this.#select.selectedIndex = Math.max(0, photos.indexOf(before));
    this.#root.hidden = photos.length === 0;
    if (photos.length === 0) {
      this.#abort.abort();
      this.#outcome.replaceChildren();
    }
  }

  /** Compare that photo, and go to where it is seen. */
  open(photo) {
    this.#select.selectedIndex = this.#photos.indexOf(photo);
    this.#root.scrollIntoView();
    this.#root.querySelector("[type=submit]").focus({ preventScroll: true });
    this.#compare(photo);
  }

  async #compare(photo) {
    this.#abort.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const asked = photo.chosen;
    const able = this.#models.filter((model) => indexOf(model, asked) >= 0);
    const columns = columnsOf(able);
    const series = able.map((model) => ({ model, points: columns.map(() => null) }));
    const total = columns.length * able.length;
    let done = 0;
    const onWait = (wait) => this.#progress({ done, total, wait });
    try {
      for (const [at, column] of columns.entries()) {
        for (const { model, points } of series) {
          onWait(0);
          points[at] = await this.#point(model, photo.file, column, asked, { signal: abort.signal, onWait });
          done++;
        }
        this.#show(photo, asked, columns, series);
      }
    } catch (problem) {
      if (!abort.signal.aborted) {
        this.#outcome.prepend(element("p", { className: "notice" }, `${problem.title}: ${problem.message}`));
      }
    } finally {
      if (this.#abort === abort) this.#progress({ done: 0, total: 0 });
    }
  }

  /** {probability, top} of a class at a size, or {error}. */
  async #point(model, file, column, asked, how) {
    const size = column === NATIVE ? { resize: "native" } : { resize: "fit", size: column };
    const ask = async (query) => (await this.#api.classify(model.name, [file], { ...size, ...query }, how))[0];
    const answer = await ask({ top_k: TOP });
    if (answer.error) return { error: answer.error };
    const index = indexOf(model, asked);
    const found = answer.predictions.find((prediction) => prediction.index === index);
    const { probability } = found ?? (await ask({ classes: index })).predictions[0];
    return { probability, top: answer.predictions[0] };
  }

  #show(photo, asked, columns, series) {
    const title = `How probable “${asked.label}” is on ${photo.name}`;
    const lines = series.map(({ model, points }) => ({
      name: model.name,
      values: points.map((point) => point?.probability ?? null),
    }));
    const chart = lineChart(lines, columns.map(String), { title, axis: "longest side in pixels" });
    const pooling = series.map(({ model }, at) =>
      element("li", {}, marker(at), element("span", {}, element("b", {}, model.name), ` ${model.card.pooling}`)));
    const legend = element("ul", { className: "legend" }, ...pooling);
    const caption = element("figcaption", {}, title);
    const figure = element("figure", {}, caption, chart, legend);
    const attributes = { className: "table", role: "region", "aria-label": "The same in numbers", tabIndex: 0 };
    this.#outcome.replaceChildren(figure, element("div", attributes, table(asked, columns, series)), this.#left(asked, series));
  }

  #left(asked, series) {
    const without = this.#models.filter((model) => !series.some((line) => line.model === model));
    if (without.length === 0) return "";
    const names = without.map(({ name }) => name).join(", ");
    return element("p", { className: "hint" }, `Not compared, for they do not know “${asked.label}”: ${names}.`);
  }
}

/** Sizes that every model may be sent. */
function columnsOf(models) {
  const most = Math.min(...models.map(({ limits }) => limits.max_side));
  return [...SIZES.filter((size) => size <= most), NATIVE];
}

/** Which class of a model is the one asked for; -1 when there is none. */
function indexOf({ card }, { id, label }) {
  return card.labels.findIndex((own) => own.id === id && own.name === label);
}

function table(asked, columns, series) {
  const names = series.map(({ model }, at) => element("th", { scope: "col" }, marker(at), model.name));
  const rows = columns.map((column, at) =>
    element("tr", {}, element("th", { scope: "row" }, String(column)), ...series.map(({ points }) => cell(asked, points[at]))));
  return element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Longest side"), ...names)),
    element("tbody", {}, ...rows));
}

function cell(asked, point) {
  if (point === null) return element("td", {}, "…");
  if (point.error) return element("td", { title: point.error.detail }, element("small", {}, point.error.title));
  const value = element("data", { value: point.probability }, percent(point.probability));
  const same = point.top.label === asked.label && point.top.id === asked.id;
  if (same) return element("td", {}, value);
  return element("td", { className: "other" }, value, element("small", {}, `it says ${point.top.label}`));
}
