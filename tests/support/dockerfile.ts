import { cpSync, existsSync, mkdirSync } from 'node:fs'
import { basename, join, posix } from 'node:path'
import { cached, layerName, openFolder, runInRoot } from './bare-root.ts'

/** One instruction: `RUN`, and what follows it. */
export interface Instruction {
  name: string
  text: string
}

export interface Stage {
  from: string
  /** The name after AS; empty for the last one. */
  name: string
  instructions: Instruction[]
}

/** What an image is: its layers from the lowest, and what its instructions say about running it. */
export interface Image {
  layers: string[]
  env: Record<string, string>
  cwd: string
  user: { uid: number; gid: number } | undefined
  volumes: string[]
  stopSignal: NodeJS.Signals
  entrypoint: string[]
  cmd: string[]
  healthcheck: string[]
}

/** The stages of a Dockerfile; of the syntax only what ours uses, and anything else throws in `buildImage`. */
export function parseDockerfile(text: string): Stage[] {
  const lines = text.replaceAll(/^\s*#.*\n/gm, '').replaceAll(/\\\n/g, ' ')
  const stages: Stage[] = []
  for (const line of lines.split('\n')) {
    if (line.trim() === '') continue
    const [, name = '', rest = ''] = /^(\S+)\s+(.*)$/.exec(line.trim()) ?? []
    if (name === 'FROM') {
      const [from = '', , as = ''] = rest.split(/\s+/)
      stages.push({ from, name: as, instructions: [] })
    } else stages.at(-1)?.instructions.push({ name, text: rest })
  }
  return stages
}

export interface BuildOptions {
  /** The folder that COPY takes from. */
  context: string
  /** The layers of each image that a stage starts from. */
  bases: Record<string, string[]>
  /** Where layers that are not worth keeping go. */
  scratch: string
  args?: Record<string, string>
  /** Seen by every RUN, as an engine gives the proxies of its machine. */
  runEnv?: Record<string, string>
}

/** Carries out the stages in chroots, as an engine would; steps that only install packages are kept for the next time. */
export function buildImage(stages: Stage[], options: BuildOptions): Image {
  const built = new Map<string, Image>()
  let last: Image | undefined
  for (const stage of stages) {
    const base = options.bases[stage.from]
    if (!base) throw new Error(`No root file system stands for the image ${stage.from}`)
    last = buildStage(stage, base, built, options)
    built.set(stage.name, last)
  }
  if (!last) throw new Error('The Dockerfile has no stage')
  return last
}

function buildStage(stage: Stage, base: string[], built: Map<string, Image>, options: BuildOptions): Image {
  const image: Image = {
    layers: [...base],
    env: {},
    cwd: '/',
    user: undefined,
    volumes: [],
    stopSignal: 'SIGTERM',
    entrypoint: [],
    cmd: [],
    healthcheck: [],
  }
  const args: Record<string, string> = {}
  for (const { name, text } of stage.instructions) {
    switch (name) {
      case 'RUN': {
        const run = (upper: string) =>
          runInRoot({
            layers: image.layers,
            upper,
            cwd: image.cwd,
            env: { ...options.runEnv, ...image.env, ...args },
            command: ['sh', '-c', text],
          })
        const isBase = image.layers.length === base.length
        image.layers.push(isBase ? cached(layerName(stage.from, text), run) : scratchLayer(options, run))
        break
      }
      case 'COPY':
        image.layers.push(scratchLayer(options, (upper) => copy(text, upper, image.cwd, built, options.context)))
        break
      case 'ARG': {
        const [key = '', value = ''] = text.split('=')
        args[key] = options.args?.[key] ?? value
        break
      }
      case 'ENV':
        for (const pair of text.split(/\s+/)) image.env[pair.split('=')[0] ?? ''] = pair.split('=')[1] ?? ''
        break
      case 'USER': {
        const [uid = 0, gid = 0] = text.split(':').map(Number)
        image.user = { uid, gid }
        break
      }
      case 'WORKDIR':
        image.layers.push(
          scratchLayer(options, (upper) => runInRoot({ layers: image.layers, upper, command: ['mkdir', '-p', text] })),
        )
        image.cwd = text
        break
      case 'VOLUME':
        image.volumes.push(text)
        break
      case 'STOPSIGNAL':
        image.stopSignal = text as NodeJS.Signals
        break
      case 'HEALTHCHECK':
        image.healthcheck = JSON.parse(text.slice(text.indexOf('[')))
        break
      case 'ENTRYPOINT':
        image.entrypoint = JSON.parse(text)
        break
      case 'CMD':
        image.cmd = JSON.parse(text)
        break
      case 'EXPOSE':
        break
      default:
        throw new Error(`The Dockerfile uses ${name}, which this cannot carry out`)
    }
  }
  return image
}

function scratchLayer({ scratch }: BuildOptions, fill: (upper: string) => unknown): string {
  const upper = openFolder(join(scratch, 'layer-'))
  fill(upper)
  return upper
}

/** `COPY [--from=stage] source... destination`, of files and folders without patterns. */
function copy(text: string, upper: string, cwd: string, built: Map<string, Image>, context: string): void {
  const words = text.split(/\s+/)
  const stage = words[0]?.startsWith('--from=') ? words.shift()?.slice('--from='.length) : undefined
  const destination = words.pop() ?? ''
  const target = posix.resolve(cwd, destination)
  for (const word of words) {
    const source = stage === undefined ? join(context, word) : inImage(built.get(stage), word)
    const intoFolder = destination.endsWith('/') || words.length > 1
    const path = join(upper, intoFolder ? join(target, basename(word)) : target)
    mkdirSync(join(path, '..'), { recursive: true })
    cpSync(source, path, { recursive: true })
  }
}

/** A file of an image, in the highest layer that has it. */
function inImage(image: Image | undefined, path: string): string {
  for (const layer of image?.layers.toReversed() ?? []) if (existsSync(join(layer, path))) return join(layer, path)
  throw new Error(`The image has no file ${path}`)
}
