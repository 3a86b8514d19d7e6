import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import type { Files } from '../../../sources/files.ts'
import type { Database } from '../../../store/database/database.ts'
import { reopenFile } from '../../../store/files/actions.ts'
import type { ReadFile } from '../../../store/files/list.ts'
import type { FileStatus } from '../../../task/source/source.ts'
import type { Access } from '../../access.ts'
import { readOptionalBody } from '../../body.ts'
import { fileJson } from '../../file-json.ts'
import { describe } from '../../openapi/describe.ts'
import { FILE_EXAMPLE } from './examples.ts'
import { FILES_TAG, knownFile } from './files.ts'
import { FILE_ID, FileSchema, RerunBody } from './files-schema.ts'
import { knownSource, unpolled } from './settings.ts'

export interface FileActionDeps {
  pool: Database['pool']
  files: Files
  /** Cancels a task with its children. */
  cancelTask(id: string): Promise<void>
  /** Sends a task that is dead or cancelled, and such children of it, again; false when there is nothing to send. */
  replayTask(id: string): Promise<boolean>
}

export function sourceFileActionRoutes(access: Access, deps: FileActionDeps) {
  const { pool, files } = deps
  const shown = async ({ sourceId, id }: Pick<ReadFile, 'sourceId' | 'id'>) =>
    fileJson(await knownFile(pool, sourceId, id))

  async function pausing(source: string, given: string, paused: boolean) {
    const file = await knownFile(pool, source, given)
    const status = await files.setPaused(file.id, paused)
    if (!isImportable(status ?? file.status)) throw ended(file)
    return shown(file)
  }

  async function cancel(source: string, given: string) {
    const file = await knownFile(pool, source, given)
    if (file.finishedAt !== null) throw ended(file)
    const status = await files.cancel(file.id)
    // All is read, and tasks of its records are live.
    if (status === 'done' && file.taskId !== null) await deps.cancelTask(file.taskId)
    return shown(file)
  }

  async function rerunWhole(file: ReadFile) {
    const source = await knownSource(pool, file.sourceId)
    const isUnpolled = source.paused ? 'paused' : source.alert ? 'alert' : source.goneAt ? 'gone' : undefined
    if (isUnpolled) throw unpolled(source, isUnpolled)
    const rerun = await files.rerun(file.id)
    switch (rerun.kind) {
      case 'again':
        return shown({ sourceId: source.id, id: rerun.id })
      case 'superseded':
        throw new Problem('conflict', 'There is a later version of this file: run that one again')
      case 'unfinished':
        throw notFinal(file)
      case 'unknown':
        throw new Problem('not-found', `There is no file "${file.id}" any more`)
      default:
        return rerun satisfies never
    }
  }

  async function rerunFailed(file: ReadFile) {
    if (file.taskId === null) {
      throw new Problem('conflict', 'Nothing of this file was imported: run it again as a whole, without "only"')
    }
    if (!(await deps.replayTask(file.taskId))) throw new Problem('conflict', 'No task of this file has failed')
    await reopenFile(pool, file.id)
    return shown(file)
  }

  return new Elysia({ prefix: '/sources' })
    .use(access)
    .post('/:id/files/:file/pause', ({ params }) => pausing(params.id, params.file, true), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: FILES_TAG,
        summary: 'Pause a file',
        description:
          'It is not fetched; an import under way stops behind its next batch. Tasks of records that are made already run on: pause their queue to stop those.',
        params: FILE_ID,
        responses: { 200: ['The file', FileSchema, { ...FILE_EXAMPLE, paused: true }] },
        problems: ['not-found', 'conflict'],
      }),
    })
    .post('/:id/files/:file/resume', ({ params }) => pausing(params.id, params.file, false), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: FILES_TAG,
        summary: 'Resume a file',
        description: 'Its import goes on behind the last record that was committed.',
        params: FILE_ID,
        responses: { 200: ['The file', FileSchema, FILE_EXAMPLE] },
        problems: ['not-found', 'conflict'],
      }),
    })
    .post('/:id/files/:file/cancel', ({ params }) => cancel(params.id, params.file), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: FILES_TAG,
        summary: 'Cancel a file',
        description:
          'It is imported no further, and the tasks of its records that are not final are cancelled. A file that was not fetched yet is skipped.',
        params: FILE_ID,
        responses: { 200: ['The file', FileSchema, FILE_EXAMPLE] },
        problems: ['not-found', 'conflict'],
      }),
    })
    .post(
      '/:id/files/:file/rerun',
      async ({ request, params, set }) => {
        const { only } = await readOptionalBody(RerunBody, request)
        const file = await knownFile(pool, params.id, params.file)
        const again = await (only === undefined ? rerunWhole(file) : rerunFailed(file))
        set.status = 202
        return again
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: FILES_TAG,
          summary: 'Import a file again',
          description:
            'The whole file, once it has ended: it is fetched again, from where it was moved to, as a new version with an id of its own, and every record becomes a new task. Or, with `only: "failed"`, what did not succeed: dead and cancelled tasks of its records are replayed, and an import that had stopped goes on behind the last record that was committed.',
          params: FILE_ID,
          body: [RerunBody, { only: 'failed' }],
          optionalBody: true,
          responses: { 202: ['The file that runs again, or its new version', FileSchema, FILE_EXAMPLE] },
          problems: ['not-found', 'conflict'],
        }),
      },
    )
}

function isImportable(status: FileStatus): boolean {
  return status === 'seen' || status === 'ready' || status === 'fetching' || status === 'importing'
}

function ended({ path, status }: ReadFile): Problem {
  return new Problem('conflict', `"${path}" is ${status}: there is nothing left to stop`)
}

function notFinal({ path, status }: ReadFile): Problem {
  return new Problem('conflict', `"${path}" has not ended, it is ${status}: cancel it first, or wait`)
}
