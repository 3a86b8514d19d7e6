import manifest from '../../package.json' with { type: 'json' }

/** The product's version, from package.json. */
export const VERSION: string = manifest.version

/** Set by scripts/build.ts; not there when run from source. */
declare const LONGSHORE_COMMIT: string

/** The product's version and the commit it was built from: `0.1.0 (1a2b3c4d5e6f)`. */
export const VERSION_AND_COMMIT = `${VERSION} (${typeof LONGSHORE_COMMIT === 'string' ? LONGSHORE_COMMIT : 'from source'})`
