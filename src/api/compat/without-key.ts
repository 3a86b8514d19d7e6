import { bareHost } from '../../runtime/egress/egress.ts'
import { isLoopbackHost } from '../../runtime/egress/ip-class.ts'
import type { Principal } from '../../task/scope.ts'

const NOBODY: Principal = { keyId: 'compat', name: 'no key (COMPAT_AUTH=none)', scopes: ['operate'] }

/**
 * With COMPAT_AUTH=none everybody on this machine may use the older systems' routes. The name that was asked for must be
 * this machine's, too: else any page could come in under a name of its own that it has led here.
 */
export function withoutKey(request: Request): Principal | undefined {
  return isLoopbackHost(bareHost(new URL(request.url))) ? NOBODY : undefined
}
