import { type HttpTarget, secretsOf } from '../task/target/target.ts'

/** Takes the target's own secrets out of what the other side said: a server that repeats its request must not tell them to those who read the task. */
export function redactor(target: HttpTarget): (text: string) => string {
  const written = [...new Set(secretsOf(target).flatMap(spellings))]
  if (written.length === 0) return (text) => text
  // Longer ones first: a secret may be the beginning of another.
  const pattern = new RegExp(
    written
      .sort((a, b) => b.length - a.length)
      .map((text) => RegExp.escape(text))
      .join('|'),
    'g',
  )
  return (text) => text.replace(pattern, '[secret]')
}

/** As it is, and as a form, a URL and JSON write it. */
function spellings(secret: string): string[] {
  return [
    secret,
    new URLSearchParams({ '': secret }).toString().slice(1),
    encodeURIComponent(secret.toWellFormed()),
    JSON.stringify(secret).slice(1, -1),
  ]
}
