// One photo: its card on the page, and what the service said of it.

import { element } from "./element.js";
import { decoded, paint, seen } from "./heat.js";
import { predictionList } from "./predictions.js";
import { preview } from "./preview.js";
import { sides } from "./words.js";

const HEAT_SIDE = 320; // of the canvas of a map, which is smooth

let ids = 0;

export class Photo {
  #picture = element("canvas", { className: "picture", role: "img" });
  #heat = element("canvas", { className: "heat", "aria-hidden": "true", hidden: true });
  #frame = element("div", { className: "frame" }, this.#picture, this.#heat);
  #sizes = element("p", { className: "sizes" });
  #verdict = element("div", { className: "verdict" });
  #previewed;
  #maps = new Map(); // by class
  #shown = null; // class whose map lies over the photo
  #act;

  /** act has again(photo), compare(photo) and look(photo, text): the map of a class by its name. */
  constructor(file, act) {
    this.file = file;
    this.name = file.name;
    this.#act = act;
    const id = `photo-${++ids}`;
    const title = element("h3", { id, title: file.name }, file.name);
    this.#picture.setAttribute("aria-label", `Photo ${file.name}`);
    const text = element("div", { className: "text" }, title, this.#sizes, this.#verdict);
    this.element = element("article", { className: "card", "aria-labelledby": id }, this.#frame, text);
    this.#previewed = this.#preview();
  }

  /** The class looked at, else the most probable one; null before there is an answer. */
  get chosen() {
    const predictions = this.result?.predictions ?? [];
    return predictions.find(({ index }) => index === this.#shown) ?? predictions[0] ?? null;
  }

  waits() {
    this.#turn("waiting", element("p", {}, "Waiting …"));
    this.result = null;
    this.#sizes.textContent = "";
    this.#hide();
  }

  cancelled() {
    this.#turn("cancelled", element("p", {}, "Cancelled."), this.#againButton("Classify"));
  }

  failed({ title, detail }) {
    const words = [element("strong", {}, title), element("p", {}, detail)];
    this.#turn("failed", ...words, this.#againButton("Try again"));
  }

  /** result: one of the service's `results`. */
  answered(result, model) {
    if (result.error) {
      this.failed(result.error);
      return;
    }
    Object.assign(this, { result, model });
    this.#maps = new Map((result.cam ?? []).map(({ index, png }) => [index, png]));
    const { input, used, resize } = result;
    const part = resize === "crop" ? " of its middle" : "";
    this.#sizes.textContent = `${sides(input)} pixels; the network saw ${sides(used)}${part}`;
    this.#draw();
    if (this.#maps.size > 0) this.#show(result.predictions[0]?.index ?? null);
  }

  /** A class more than those that were answered, with its map. */
  added({ predictions, cam }) {
    const [found] = predictions;
    const known = this.result.predictions.filter(({ index }) => index !== found.index);
    this.result.predictions = [...known, found];
    this.#maps.set(found.index, cam[0].png);
    this.#draw();
    this.#show(found.index);
  }

  #turn(state, ...content) {
    this.element.dataset.state = state;
    this.#verdict.replaceChildren(...content);
  }

  #draw() {
    const pick = this.#maps.size > 0 ? (index) => this.#toggle(index) : null;
    const compare = element("button", { type: "button" }, "Compare sizes");
    compare.onclick = () => this.#act.compare(this);
    const foot = element("div", { className: "foot" }, compare);
    if (pick) foot.prepend(this.#search());
    this.#turn("answered", predictionList(this.result.predictions, this.#shown, pick), foot);
  }

  #search() {
    const attributes = { placeholder: "Another class", "aria-label": `Map of another class on ${this.name}` };
    const input = element("input", { type: "search", autocomplete: "off", required: true, ...attributes });
    input.setAttribute("list", "class-names");
    input.oninput = () => this.model.classes.offer(input);
    const note = element("p", { className: "note", role: "alert" });
    const form = element("form", { className: "search" }, input, note);
    form.onsubmit = async (event) => {
      event.preventDefault();
      note.textContent = await this.#act.look(this, input.value);
    };
    return form;
  }

  #againButton(words) {
    const button = element("button", { type: "button" }, words);
    button.onclick = () => this.#act.again(this);
    return button;
  }

  #toggle(index) {
    if (index === this.#shown) this.#hide();
    else this.#show(index);
  }

  #hide() {
    this.#shown = null;
    this.#heat.hidden = true;
    this.#press();
  }

  async #show(index) {
    this.#shown = index;
    this.#press();
    await this.#previewed; // before that the frame is empty
    const grey = await decoded(this.#maps.get(index));
    if (this.#shown !== index) return;
    shape(this.#heat, this.result.input, HEAT_SIDE);
    paint(this.#heat, grey, seen(this.#heat, this.result.resize, this.model.card.preprocessing));
    this.#heat.dataset.index = index;
    this.#heat.hidden = false;
  }

  #press() {
    for (const button of this.#verdict.querySelectorAll("[aria-pressed]")) {
      button.setAttribute("aria-pressed", Number(button.value) === this.#shown);
    }
  }

  async #preview() {
    const bitmap = await preview(this.file);
    this.#frame.dataset.preview = bitmap ? "shown" : "none";
    if (!bitmap) {
      this.#frame.append(element("p", {}, "No preview"));
      return;
    }
    shape(this.#picture, bitmap, Math.max(bitmap.width, bitmap.height));
    this.#picture.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }
}

/** Give a canvas that shape, its longest side `most`. */
function shape(canvas, { width, height }, most) {
  const scale = most / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
}
