import { Type } from '@sinclair/typebox'
import { UUID_PATTERN } from '../../../runtime/uuid.ts'
import type { ForeignReport } from '../../../store/tasks/foreign-report.ts'
import type { Status } from '../../../task/status.ts'

const STATUSES = ['NEW_TASK', 'WAIT_WORK', 'IN_PROGRESS', 'SUCCESS', 'ERROR'] as const
export type OldStatus = (typeof STATUSES)[number]

/** Our statuses in this system's words. */
export const SHOWN: Record<Status, OldStatus> = {
  pending: 'NEW_TASK',
  queued: 'WAIT_WORK',
  running: 'IN_PROGRESS',
  retrying: 'IN_PROGRESS',
  succeeded: 'SUCCESS',
  dead: 'ERROR',
  cancelled: 'ERROR',
}

/** What a consumer means by one of them: NEW_TASK gives the task back, WAIT_WORK is a failure that is tried again. */
export const MEANT: Record<OldStatus, ForeignReport['status']> = {
  NEW_TASK: 'pending',
  WAIT_WORK: 'retrying',
  IN_PROGRESS: 'running',
  SUCCESS: 'succeeded',
  ERROR: 'dead',
}

const TaskId = Type.String({
  pattern: UUID_PATTERN,
  description: 'The id of a task, a UUID',
})
const Shown = Type.Union(
  STATUSES.map((status) => Type.Literal(status)),
  { description: 'NEW_TASK and WAIT_WORK wait, SUCCESS and ERROR are final' },
)
const Time = (description: string) => Type.Union([Type.String({ format: 'date-time' }), Type.Null()], { description })

export const NewBody = Type.Object(
  { text: Type.String({ pattern: '\\S', description: 'What is to be done; not blank' }) },
  { additionalProperties: false },
)
export const Made = Type.Object({ id: Type.String({ format: 'uuid' }), status: Shown })
export const DataQuery = Type.Object({ taskId: TaskId }, { additionalProperties: false })

const REPORT = {
  taskId: TaskId,
  taskStatus: Shown,
  attempt: Type.Integer({
    minimum: 1,
    description: 'Which attempt the report is about (header x-longshore-attempt); needed from the second one on',
  }),
}
/** The query, and the body: each field may stand in either. */
export const ReportPart = Type.Partial(Type.Object(REPORT), { additionalProperties: false })
export const Report = Type.Object(
  { ...REPORT, attempt: Type.Optional(REPORT.attempt) },
  { additionalProperties: false },
)

export const Data = Type.Object({
  id: Type.String({ format: 'uuid' }),
  text: Type.String(),
  status: Shown,
  dateCreate: Type.String({ format: 'date-time', description: 'When it was accepted' }),
  dateProcessing: Time('When its last attempt started; null before'),
})

export const DATA_EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000001',
  text: 'Do this',
  status: 'IN_PROGRESS',
  dateCreate: '2026-01-01T00:00:00.000Z',
  dateProcessing: '2026-01-01T00:00:01.000Z',
}
