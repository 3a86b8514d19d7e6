/** What a key may do. `read`, `submit`, `operate` and `admin` each include the former; `work` stands beside them. */
export const SCOPES = ['read', 'submit', 'operate', 'admin', 'work'] as const
export type Scope = (typeof SCOPES)[number]

/** Whose key a request carries. */
export interface Principal {
  keyId: string
  name: string
  scopes: readonly Scope[]
}

const LADDER: readonly Scope[] = ['read', 'submit', 'operate', 'admin']

/** True when one of the principal's scopes is `needed` or includes it. */
export function allows(principal: Principal, needed: Scope): boolean {
  if (needed === 'work') return principal.scopes.includes('work')
  return principal.scopes.some((scope) => LADDER.indexOf(scope) >= LADDER.indexOf(needed))
}
