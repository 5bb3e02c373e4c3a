// How numbers are said.

const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const MEGABYTES = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** 0.8641 is "86.4%", and what would round to nothing is "<0.1%". */
export function percent(part) {
  return part > 0 && part < 0.0005 ? "<0.1%" : PERCENT.format(part);
}

/** "1024 × 681", never broken into two lines. */
export function sides({ width, height }) {
  return `${width}\u00a0×\u00a0${height}`;
}

/** "12.5 MB" */
export function megabytes(bytes) {
  return `${MEGABYTES.format(bytes / 1e6)} MB`;
}

/** "1 photo", "2 photos" */
export function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}
