/** What ends a part that was begun; carried out in the reverse order. */
export type Stops = (() => Promise<void>)[]
