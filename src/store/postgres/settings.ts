/** Postgres names its socket after a port, also without TCP. */
export const SOCKET_PORT = 5432

/** Unix socket addresses hold 108 bytes on Linux, 104 on macOS; Postgres adds a lock file's suffix. */
const SOCKET_DIR_BYTES = 104 - '/.s.PGSQL.5432.lock'.length - 1

export function fitsSocket(dir: string): boolean {
  return Buffer.byteLength(dir) <= SOCKET_DIR_BYTES
}

/** postgresql.conf of the embedded cluster, written anew at every start; the operator's own is included if there is one. */
export function postgresqlConf(socketDir: string, localConf: string, includeLocal: boolean): string {
  return `# Written by Longshore at every start. Settings of your own belong into ${localConf}, which is read last.

# Only this machine, only through the socket, only its owner.
listen_addresses = ''
port = ${SOCKET_PORT}
unix_socket_directories = '${socketDir.replaceAll("'", "''")}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'

# What is committed survives a crash and a power cut.
fsync = on
synchronous_commit = on
full_page_writes = on

# One node's pool, its listener and a few command lines.
max_connections = 50
# The ledger's hot part fits; the rest is the operating system's cache.
shared_buffers = 128MB
effective_cache_size = 512MB
work_mem = 8MB
maintenance_work_mem = 64MB

# Nobody replicates from here: less is written, and an idle server writes nothing.
wal_level = minimal
max_wal_senders = 0
# Checkpoints make every page's next change write the whole page: have few of them. These programs have no
# compression but pglz, which costs a processor more than it saves a disk.
wal_compression = off
max_wal_size = 1GB
checkpoint_timeout = 15min

# Every task is updated a few times within seconds: clean up soon and at speed, in small bites.
autovacuum_naptime = 10s
autovacuum_max_workers = 2
autovacuum_vacuum_cost_limit = 2000

# Short statements that use indexes: neither compiling them nor parallel workers pay off.
jit = off
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
max_worker_processes = 2
max_logical_replication_workers = 0
random_page_cost = 1.1
# Reads come from memory; three idle reader processes would only cost.
io_method = 'sync'

timezone = 'UTC'
datestyle = 'ISO, MDY'
lc_messages = 'C'

# To standard error: what the server itself meets. Failed statements are told to who sent them, and may hold payloads.
log_destination = 'stderr'
logging_collector = off
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_messages = log
log_min_error_statement = panic
log_checkpoints = off
log_autovacuum_min_duration = -1

${includeLocal ? `include = '${localConf.replaceAll("'", "''")}'\n` : ''}`
}
