/**
 * Keeps requests under way before their answers are taken, in order: so many round trips cost the time of one. Begins with
 * two and doubles up to `most`, so that little is asked for in vain.
 */
export class Ahead<T> {
  readonly #start: () => Promise<T>
  readonly #most: number
  readonly #waiting: Promise<T>[] = []
  #window = 2

  constructor(start: () => Promise<T>, most: number) {
    this.#start = start
    this.#most = most
  }

  /** The answer to the oldest request. */
  next(): Promise<T> {
    while (this.#waiting.length < this.#window) {
      const answer = this.#start()
      // Nobody may ask for it any more.
      answer.catch(() => {})
      this.#waiting.push(answer)
    }
    this.#window = Math.min(this.#window * 2, this.#most)
    return this.#waiting.shift() as Promise<T>
  }
}
