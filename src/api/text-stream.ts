/**
 * A body whose texts are made as the caller takes them. One that fails, of which `onError` is told, breaks the connection: no
 * caller can take what came for the whole.
 */
export function textStream(
  texts: AsyncGenerator<string, void, void>,
  onError: (error: unknown) => void,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  let isLeft = false
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await texts.next()
        if (isLeft) return
        if (done) controller.close()
        else controller.enqueue(encoder.encode(value))
      } catch (error) {
        onError(error)
        controller.error(error)
      }
    },
    async cancel() {
      isLeft = true
      await texts.return()
    },
  })
}
