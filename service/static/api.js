// The service, as any client sees it. Addresses are relative: it may stand below any path.

import { Problem } from "./problem.js";

const TRIES = 6; // of a request that is told to come again
const LONGEST_WAIT_S = 30;

export class Api {
  #key = null; // in memory, and nowhere else
  #asking = null;
  #askKey;

  /** askKey(detail) gives a key, or null; detail says what is wrong with the last one. */
  constructor(askKey) {
    this.#askKey = askKey;
  }

  /** The loaded models, the default first, each name once: its newest version. */
  async models(how) {
    const { models } = await this.#json("v1/models", how);
    return [...new Map(models.map((model) => [model.name, model])).keys()];
  }

  /** A model's card and the limits in force. */
  model(name, how) {
    return this.#json(`v1/models/${encodeURIComponent(name)}`, how);
  }

  /** One result or one error for each file, in that order. */
  async classify(model, files, query, how) {
    const body = new FormData();
    for (const file of files) body.append("files", file, file.name);
    const path = `v1/models/${encodeURIComponent(model)}/classify?${new URLSearchParams(query)}`;
    return (await this.#json(path, { ...how, method: "POST", body })).results;
  }

  /** Metrics as text; never asks for a key. */
  async metrics(signal) {
    return (await this.#answer("metrics", { signal })).text();
  }

  /** The answer's JSON; comes again when told to: onWait(seconds, detail) says so. */
  async #json(path, { onWait, ...options } = {}) {
    for (let tries = 1; ; tries++) {
      try {
        return await (await this.#allowed(path, options)).json();
      } catch (problem) {
        if (!(problem instanceof Problem && problem.passes) || tries === TRIES) throw problem;
        const seconds = Math.min(problem.retryAfter, LONGEST_WAIT_S) + Math.random();
        onWait?.(Math.ceil(seconds), problem.detail);
        await pause(seconds, options.signal);
        onWait?.(0, "");
      }
    }
  }

  /** The answer; asks for a key as long as that is what is missing. */
  async #allowed(path, options) {
    for (;;) {
      const sent = this.#key;
      try {
        return await this.#answer(path, options);
      } catch (problem) {
        if (problem.status !== 401) throw problem;
        if (sent === this.#key && !(await this.#newKey(sent === null ? "" : problem.detail))) throw problem;
      }
    }
  }

  async #answer(path, options) {
    const headers = this.#key === null ? {} : { Authorization: `Bearer ${this.#key}` };
    const answer = await fetch(path, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : Problem.unreachable();
    });
    if (!answer.ok) throw await Problem.of(answer);
    return answer;
  }

  async #newKey(detail) {
    this.#asking ??= this.#askKey(detail); // one dialog, however many requests need it
    const key = await this.#asking;
    this.#asking = null;
    if (key !== null) this.#key = key;
    return key !== null;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
