// Line charts in plain SVG. Whoever cannot see them has the table beside them.

import { drawn, element } from "./element.js";

const HEIGHT = 280;
const LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 44;
const TICKS = [0, 0.25, 0.5, 0.75, 1];
const SHAPES = [ // told apart also without colour; each around 0, 0
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
  "M-4,-4h8v8h-8z",
  "M0,-5l5,9h-10z",
  "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",
  "M-5,-4h10l-5,9z",
];

/** The sign of a series, for a legend. */
export function marker(series) {
  const shape = drawn("path", { d: SHAPES[series % SHAPES.length], class: `series-${series % SHAPES.length}` });
  return drawn("svg", { viewBox: "-7 -7 14 14", class: "marker", "aria-hidden": "true" }, shape);
}

/** lines: [{name, values}], each value from 0 to 1 or null; labels: of the places along x. */
export function lineChart(lines, labels, { title, axis }) {
  const box = element("div", { className: "chart" });
  const draw = ([{ contentRect }]) => contentRect.width > 0 && box.replaceChildren(chart(contentRect.width));
  const chart = (width) => picture(lines, labels, title, axis, width);
  new ResizeObserver(draw).observe(box); // drawn anew rather than scaled: its letters keep their size
  return box;
}

function picture(lines, labels, title, axis, width) {
  const x = (at) => LEFT + (at / Math.max(1, labels.length - 1)) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);
  const parts = [drawn("title", {}, title), ...TICKS.flatMap((tick) => rule(tick, y(tick), width))];
  const every = Math.ceil((labels.length * 40) / width); // as many labels as there is room for
  labels.forEach((label, at) => {
    if (at % every === 0 || at === labels.length - 1) parts.push(text(label, x(at), HEIGHT - BOTTOM + 18, "middle"));
  });
  parts.push(text(axis, (LEFT + width - RIGHT) / 2, HEIGHT - 6, "middle"));
  lines.forEach(({ values }, series) => parts.push(...line(values, series % SHAPES.length, x, y)));
  const size = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` };
  return drawn("svg", { ...size, role: "img", "aria-label": `${title}: ${spoken(lines, labels)}` }, ...parts);
}

function rule(tick, at, width) {
  const path = drawn("path", { d: `M${LEFT},${at}H${width - RIGHT}`, class: "rule" });
  return [path, text(`${100 * tick}%`, LEFT - 8, at + 4, "end")];
}

function text(words, x, y, anchor) {
  return drawn("text", { x, y, "text-anchor": anchor }, words);
}

function line(values, series, x, y) {
  const places = values.flatMap((value, at) => (value === null ? [] : [[x(at), y(value)]]));
  const path = drawn("path", { d: `M${places.join("L")}`, class: `line series-${series}` });
  const points = places.map(([left, top]) =>
    drawn("path", { d: SHAPES[series], transform: `translate(${left},${top})`, class: `point series-${series}` }));
  return places.length > 0 ? [path, ...points] : [];
}

/** A line or two for a screen reader: where each series is highest. */
function spoken(lines, labels) {
  const best = ({ name, values }) => {
    const at = values.indexOf(Math.max(...values.filter((value) => value !== null)));
    return at < 0 ? `${name} not yet known` : `${name} highest at ${labels[at]}`;
  };
  return lines.map(best).join(", ");
}

/** A small line without axes; values of any size from 0 up. */
export function sparkline(values) {
  if (values.length < 2) return "";
  const most = Math.max(...values, 1e-9);
  const place = (value, at) => [(at / (values.length - 1)) * 100, 22 - 20 * (value / most)];
  const path = drawn("path", { d: `M${values.map(place).join("L")}`, class: "line series-0" });
  return drawn("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" }, path);
}
