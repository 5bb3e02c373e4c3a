// The classes of one photo, with bars.

import { element } from "./element.js";
import { percent } from "./words.js";

/** pick(index) is called when a class is chosen; null where there is nothing to see of it. */
export function predictionList(predictions, shown, pick) {
  if (predictions.length === 0) return element("p", {}, "No class is probable enough.");
  const rows = predictions.map((prediction) => element("li", {}, row(prediction, shown, pick)));
  return element("ol", { className: "predictions" }, ...rows);
}

function row({ index, id, label, probability }, shown, pick) {
  const bar = element("span", { className: "bar", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.width = `${100 * probability}%`;
  const content = [
    element("span", { className: "label" }, label),
    element("data", { value: probability }, percent(probability)),
    bar,
  ];
  if (pick === null) return element("div", { className: "row", title: id }, ...content);
  const title = `${id}: show where the network sees it`;
  const button = element("button", { type: "button", className: "row", value: index, title }, ...content);
  button.setAttribute("aria-pressed", index === shown);
  button.onclick = () => pick(index);
  return button;
}
