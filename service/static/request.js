// How many photos go in one request.

import { megabytes } from "./words.js";
import { Problem } from "./problem.js";

const MOST_IMAGES = 8; // so that progress is seen, and cancelling soon helps
const MOST_BYTES = 16e6;
const FRAME_BYTES = 1_000; // of multipart, for each file

/** Take the photos of the next request off the front of `waiting`; at least one. */
export function takeRequest(waiting, limits) {
  const images = Math.min(limits.max_images, MOST_IMAGES);
  const room = Math.min(limits.max_body_bytes, MOST_BYTES);
  let taken = 0;
  let bytes = 0;
  while (taken < Math.min(images, waiting.length)) {
    bytes += waiting[taken].file.size + FRAME_BYTES;
    if (taken > 0 && bytes > room) break;
    taken++;
  }
  return waiting.splice(0, taken);
}

/** Why a file need not even be sent, or null. */
export function refusal(file, limits) {
  if (file.size + FRAME_BYTES <= limits.max_body_bytes) return null;
  const most = megabytes(limits.max_body_bytes);
  return new Problem("The file is too large", `It has ${megabytes(file.size)}; the service takes ${most}.`);
}
