// A model's classes, by name. There may be thousands: the page holds the few that match.

const SHOWN = 12;

export class Classes {
  #names;

  /** labels: [{id, name}], as the card has them. */
  constructor(labels) {
    this.#names = labels.map(({ name }, index) => `${name} (${index})`);
  }

  /** Offer those that match what is typed into `input`, below it. */
  offer(input) {
    const list = document.querySelector("#class-names");
    list.replaceChildren(...this.#matching(input.value).map((name) => new Option(name)));
  }

  /** The index of the class that `text` names or begins to name; -1 when there is none. */
  find(text) {
    const [first] = this.#matching(text);
    return first === undefined ? -1 : this.#names.indexOf(first);
  }

  #matching(text) {
    const sought = text.trim().toLowerCase();
    if (sought === "") return [];
    const inside = this.#names.filter((name) => name.toLowerCase().includes(sought));
    const begins = (name) => name.toLowerCase().startsWith(sought);
    return inside.sort((a, b) => begins(b) - begins(a)).slice(0, SHOWN);
  }
}
