// Class activation maps as pictures.

// From nothing to most; cards.css draws the same beside the slider.
const STOPS = [[20, 18, 66], [92, 40, 146], [205, 52, 110], [246, 130, 58], [255, 226, 120]];
const COLOURS = palette();
const FAINTEST = 90; // so that what is hot stands out, and the photo can be seen where nothing is

/** A map as the service sends it, a grey PNG in base64, as a picture. */
export function decoded(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/** Paint such a picture in colour, nothing as nearly nothing, over the `region` {x, y, width, height} of `canvas`. */
export function paint(canvas, grey, { x, y, width, height }) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(grey, x, y, width, height);
  const picture = context.getImageData(x, y, width, height);
  colour(picture.data);
  context.putImageData(picture, x, y);
}

function colour(data) {
  for (let at = 0; at < data.length; at += 4) {
    const level = data[at];
    data.set(COLOURS.subarray(3 * level, 3 * level + 3), at);
    data[at + 3] = FAINTEST + ((255 - FAINTEST) * Math.min(255, 2 * level)) / 255;
  }
}

function palette() {
  const colours = new Uint8ClampedArray(3 * 256);
  for (let level = 0; level < 256; level++) {
    const at = (level / 255) * (STOPS.length - 1);
    const [from, to] = [STOPS[Math.floor(at)], STOPS[Math.ceil(at)]];
    from.forEach((start, i) => (colours[3 * level + i] = start + (at % 1) * (to[i] - start)));
  }
  return colours;
}

/**
 * Where on a photo of `width` × `height` the network looked: all of it, or the square in the
 * middle that a card's crop leaves.
 */
export function seen({ width, height }, resize, { size, crop }) {
  if (resize !== "crop") return { x: 0, y: 0, width, height };
  const side = Math.max(1, Math.round((crop / size) * Math.min(width, height)));
  return { x: Math.round((width - side) / 2), y: Math.round((height - side) / 2), width: side, height: side };
}
