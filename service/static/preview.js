// Small pictures of photos, one at a time: a dozen of twelve megapixels would fill the memory.

const SIDE = 800;

let worker = null;
let last = Promise.resolve();
let id = 0;

/** A bitmap of `file` of at most 800 pixels a side; null where the browser cannot show it. */
export function preview(file) {
  const made = last.then(() => shrunk(file));
  last = made;
  return made;
}

function shrunk(file) {
  worker ??= new Worker(new URL("shrink.js", import.meta.url));
  return new Promise((resolve) => {
    const mine = ++id;
    worker.onmessage = ({ data }) => data.id === mine && resolve(data.bitmap);
    worker.onerror = () => resolve(null);
    worker.postMessage({ id: mine, file, side: SIDE });
  });
}
