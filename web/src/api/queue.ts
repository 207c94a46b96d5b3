// A queue in front of the server, for questions that a page asks by the dozen: so many at once, the rest wait for their turn, and whoever
// gives up while waiting is never asked.

export class Queue {
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  /** `most` is how many tasks run at once. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Runs a task when it is its turn. Rejects as the task does, or with the signal's reason where that came first. */
  async run<T>(task: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#running < this.#most) this.#running++;
    else await new Promise<void>((turn) => this.#waiting.push(turn));
    try {
      signal.throwIfAborted();
      return await task();
    } finally {
      // The place goes from hand to hand, so that nobody who comes meanwhile takes it.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
