// Sends photos, a request at a time, and tells each what became of it.

import { Problem } from "./problem.js";
import { refusal, takeRequest } from "./request.js";

export class Sender {
  #waiting = [];
  #sending = [];
  #total = 0;
  #running = false;
  #abort = new AbortController();
  #api;
  #choice;
  #onChange;

  /**
   * choice() gives {model, query}, as the visitor chose; onChange({done, total, wait}) is told
   * how far it is. A photo has `file`, and the methods waits, answered, failed and cancelled.
   */
  constructor(api, choice, onChange) {
    this.#api = api;
    this.#choice = choice;
    this.#onChange = onChange;
  }

  send(photos) {
    for (const photo of photos) photo.waits();
    this.#waiting.push(...photos);
    this.#total += photos.length;
    this.#tell();
    if (!this.#running) this.#run();
  }

  cancel() {
    const left = [...this.#sending, ...this.#waiting];
    this.#waiting = [];
    this.#sending = [];
    this.#total = 0;
    this.#abort.abort();
    for (const photo of left) photo.cancelled();
    this.#tell();
  }

  async #run() {
    this.#running = true;
    while (this.#waiting.length > 0) {
      this.#abort = new AbortController();
      const { model, query } = this.#choice();
      this.#sending = takeRequest(this.#waiting, model.limits);
      await this.#request(this.#sending, model, query, this.#abort.signal);
      this.#sending = [];
      this.#tell();
    }
    this.#running = false;
    this.#total = 0;
    this.#tell();
  }

  /** One request; when it is refused as a whole, each photo by itself, so that none is lost. */
  async #request(photos, model, query, signal) {
    const onWait = (seconds) => this.#tell(seconds);
    try {
      const good = photos.filter((photo) => !fail(photo, refusal(photo.file, model.limits)));
      if (good.length === 0) return;
      const files = good.map((photo) => photo.file);
      const results = await this.#api.classify(model.name, files, query, { signal, onWait });
      good.forEach((photo, at) => signal.aborted || photo.answered(results[at], model));
    } catch (problem) {
      if (signal.aborted) return;
      if (photos.length > 1 && mayBeOnes(problem)) {
        for (const photo of photos) await this.#request([photo], model, query, signal);
      } else for (const photo of photos) fail(photo, await reason(problem, photo));
    }
  }

  #tell(wait = 0) {
    const left = this.#waiting.length + this.#sending.length;
    this.#onChange({ done: this.#total - left, total: this.#total, wait });
  }
}

function fail(photo, problem) {
  if (problem !== null) photo.failed(problem);
  return problem !== null;
}

/** Whether a request may have been refused for one of its photos: that one's file, or its size. */
function mayBeOnes({ status }) {
  return status < 500 && status !== 401 && status !== 429;
}

/** A file that is gone, or is a folder, looks to the browser like a service that is gone. */
async function reason(problem, photo) {
  if (!(problem instanceof Problem)) return new Problem("This page went wrong", String(problem));
  if (problem.status !== 0) return problem;
  const readable = await photo.file.slice(0, 1).arrayBuffer().then(() => true, () => false);
  return readable ? problem : new Problem("The file cannot be read", "It is a folder, or has gone.");
}
