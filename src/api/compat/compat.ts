import type { AnyElysia } from 'elysia'
import type { Access } from '../access.ts'
import { type ClientTransactionDeps, clientTransactionRoutes } from './client-transactions.ts'
import { type ConsumerManagementDeps, consumerManagementRoutes } from './consumer-management.ts'
import { type FtpProducerDeps, ftpProducerRoutes } from './ftp-producer.ts'
import { type JobDeps, jobRoutes } from './job-fan-out.ts'
import { type SmallestDeps, smallestRoutes } from './smallest.ts'
import { type TaskServiceDeps, taskServiceRoutes } from './task-service.ts'

export interface CompatDeps
  extends ConsumerManagementDeps,
    JobDeps,
    SmallestDeps,
    TaskServiceDeps,
    FtpProducerDeps,
    ClientTransactionDeps {}

/** The routes of the older systems, as their clients call them; they stand at the root. */
export function compatRoutes(access: Access, deps: CompatDeps): AnyElysia[] {
  return [
    consumerManagementRoutes(access, deps),
    jobRoutes(access, deps),
    smallestRoutes(access, deps),
    taskServiceRoutes(access, deps),
    ftpProducerRoutes(access, deps),
    clientTransactionRoutes(access, deps),
  ]
}
