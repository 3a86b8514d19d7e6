/** Sees to it that a connection does one thing at a time. A second one is a bug of the caller: it throws. */
export class OneAtATime {
  #doing: string | undefined

  async run<T>(doing: string, work: () => Promise<T>): Promise<T> {
    this.#enter(doing)
    try {
      return await work()
    } finally {
      this.#doing = undefined
    }
  }

  async *stream<T>(doing: string, work: () => AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
    this.#enter(doing)
    try {
      yield* work()
    } finally {
      this.#doing = undefined
    }
  }

  #enter(doing: string): void {
    if (this.#doing !== undefined) {
      throw new Error(`A connection does one thing at a time: cannot ${doing} while it is to ${this.#doing}`)
    }
    this.#doing = doing
  }
}
