// How photos are classified, and how their heat maps look.

const SIZED = ["fit", "limit"];

export class Controls {
  #model = document.querySelector("#model");
  #resize = document.querySelector("#resize");
  #size = document.querySelector("#size");
  #models;

  /** onChange() is called when photos are to be classified in another way. */
  constructor(models, onChange) {
    this.#models = models;
    const form = document.querySelector("#controls");
    form.onsubmit = (event) => event.preventDefault();
    form.onchange = ({ target }) => {
      this.#show();
      if (target.id !== "opacity" && form.reportValidity()) onChange();
    };
    const opacity = document.querySelector("#opacity");
    const lay = () => document.body.style.setProperty("--heat", opacity.value / 100);
    opacity.oninput = lay;
    lay(); // a browser may remember where the slider was
  }

  /** Offer the models there are. */
  show() {
    this.#model.replaceChildren(...this.#models.map(({ name }) => new Option(name)));
    document.querySelector("#model-label").hidden = this.#models.length < 2;
    this.#show();
  }

  /** What a request asks for: {model, query}. */
  get choice() {
    const model = this.#chosen;
    const maps = model.card.outputs.includes("cam") ? { cam: "png" } : {};
    return { model, query: { ...this.sizing, ...maps } };
  }

  /** The part of a query about size. */
  get sizing() {
    const resize = this.#resize.value;
    return SIZED.includes(resize) ? { resize, size: this.#size.value } : { resize };
  }

  get #chosen() {
    return this.#models[Math.max(0, this.#model.selectedIndex)];
  }

  #show() {
    document.querySelector("#size-label").hidden = !SIZED.includes(this.#resize.value);
    this.#size.disabled = !SIZED.includes(this.#resize.value);
    if (this.#models.length === 0) return;
    const { card, limits } = this.#chosen;
    this.#size.max = limits.max_side;
    document.querySelector("#heat-label").hidden = !card.outputs.includes("cam");
    this.#resize.options[0].textContent = `as the model says${told(card.preprocessing)}`;
  }
}

function told({ policy, size, crop }) {
  const words = { fit: `to ${size}`, limit: `to at most ${size}`, short: `shortest side ${size}`, crop: `crop ${crop}`, native: "not at all" };
  return ` (${words[policy]})`;
}
