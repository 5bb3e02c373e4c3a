// What went wrong, in words that can stand beside a photo.

export class Problem extends Error {
  /** title and detail are shown; retryAfter in seconds, where trying again helps. */
  constructor(title, detail, { status = 0, retryAfter = 0 } = {}) {
    super(detail);
    Object.assign(this, { title, detail, status, retryAfter });
  }

  /** What an answer other than 2xx says: problem+json of ours, or whatever a proxy made up. */
  static async of(answer) {
    const body = await answer.json().catch(() => ({}));
    const title = body.title ?? `The service answered ${answer.status}`;
    const retryAfter = Number(answer.headers.get("Retry-After")) || 0;
    return new Problem(title, body.detail ?? answer.statusText, { status: answer.status, retryAfter });
  }

  static unreachable() {
    return new Problem("The service cannot be reached", "Is it running, and are you online?");
  }

  /** Whether the same request may be answered in a while. */
  get passes() {
    return this.retryAfter > 0 && (this.status === 429 || this.status === 503);
  }
}
