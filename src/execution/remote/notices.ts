import { type Clock, pause } from '../../runtime/clock.ts'

export interface RemoteNoticesDeps {
  clock: Clock
  /** Waits for news after a position; rejects when the server cannot be asked, and when `signal` aborts. */
  next(position: string | undefined, signal: AbortSignal): Promise<{ notice: boolean; position: string }>
  onNotice(): void
}

/** News may come in bursts: so many milliseconds of them share one beat. */
const COALESCE_MS = 100
/** Beats find out by themselves meanwhile. */
const RETRY_MS = 5_000

/** Asks the server for news again and again, and passes each on. */
export function followNotices({ clock, next, onNotice }: RemoteNoticesDeps): { stop(): Promise<void> } {
  const stopped = new AbortController()

  async function follow(): Promise<void> {
    let position: string | undefined
    while (!stopped.signal.aborted) {
      const news = await next(position, stopped.signal).catch(() => undefined)
      if (stopped.signal.aborted) return
      position = news?.position
      if (news?.notice) onNotice()
      await pause(clock, news ? COALESCE_MS : RETRY_MS, stopped.signal)
    }
  }

  const following = follow()
  return {
    async stop() {
      stopped.abort()
      await following
    },
  }
}
