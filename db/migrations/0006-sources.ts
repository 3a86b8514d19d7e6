import { type Kysely, sql } from 'kysely'

/** File servers that are polled, the files seen there, and the records that were refused. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create table sources (
    id uuid primary key,
    name text not null unique,
    -- as it was given, without how to log in
    settings jsonb not null,
    -- what may be shown of how to log in: kind and user name
    auth jsonb,
    -- the rest of it: AES-256-GCM, and which key opens it
    secret bytea,
    secret_key text,
    paused boolean not null default false,
    -- who keeps it in step with a list of theirs, what they call it, and since when they do not name it any more
    managed_by text,
    external_id text,
    gone_at timestamptz,
    -- who answered when it was tested or polled first: the server's key or certificate
    pinned jsonb,
    -- why polling stands still until somebody looks
    alert jsonb,
    -- infinity: when somebody asks
    next_poll_at timestamptz not null,
    polled_at timestamptz,
    -- when the last listing began that came to its end
    listed_at timestamptz,
    -- of the last poll: counts, or the layer that failed and why
    poll jsonb,
    -- polls in a row that failed as a whole
    poll_failures integer not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  )`.execute(db)
  await sql`create index sources_due on sources (next_poll_at)
    where not paused and alert is null and gone_at is null`.execute(db)
  await sql`create index sources_secret_key on sources (secret_key) where secret is not null`.execute(db)
  await sql`create unique index sources_external on sources (managed_by, external_id)
    where managed_by is not null`.execute(db)

  await sql`create table files (
    id uuid primary key,
    source uuid not null references sources (id) on delete cascade,
    path text not null,
    generation integer not null default 1,
    -- as listed; the time as text, because listings are compared with listings only
    size bigint,
    modified text,
    -- the time to the second, of servers whose listings do not tell it
    exact text,
    -- a change within the minute that a listing tells would go unseen: until then it is asked for
    unsure_until timestamptz,
    status text not null,
    -- listings in a row that told the same size and time, and the first of them
    stable integer not null default 1,
    stable_at timestamptz not null default now(),
    -- the last listing that told of it; of a file that was fetched, to the day
    listed_at timestamptz not null default now(),
    -- size and time of the marker that said it was complete
    marker text,
    -- asked for by somebody, whether it is listed or not
    asked boolean not null default false,
    -- tries to fetch it that failed, and when the next one comes
    failures integer not null default 0,
    retry_at timestamptz,
    paused boolean not null default false,
    sha256 text,
    -- its name in the spool of the node that has it
    spool text,
    spool_node uuid,
    task uuid,
    bytes_read bigint not null default 0,
    records_read bigint not null default 0,
    records_rejected bigint not null default 0,
    -- when the last attempt at it began, and behind how much
    attempt_at timestamptz,
    attempt_bytes bigint,
    attempt_records bigint,
    -- where reading goes on; as text, because a header may hold what jsonb refuses
    checkpoint json,
    -- what became of its records' tasks, once all of them were final
    tasks jsonb,
    -- what is to be done with the remote file: null, pending, done, moot
    after text,
    after_at timestamptz,
    after_failures integer not null default 0,
    after_error text,
    -- where it was moved to
    location text,
    duplicate_of uuid,
    error text,
    seen_at timestamptz not null default now(),
    fetched_at timestamptz,
    imported_at timestamptz,
    -- all its records' tasks are final, or there will be none
    finished_at timestamptz,
    unique (source, path, generation)
  )`.execute(db)
  await sql`create index files_source on files (source, seen_at, id)`.execute(db)
  await sql`create index files_task on files (task) where task is not null`.execute(db)
  await sql`create index files_content on files (source, sha256) where sha256 is not null`.execute(db)
  await sql`create index files_waiting on files (source, status)
    where status in ('seen', 'ready', 'fetching')`.execute(db)
  await sql`create index files_unfinished on files (task) where finished_at is null and task is not null`.execute(db)
  await sql`create index files_after on files (source, after_at) where after = 'pending'`.execute(db)

  await sql`create table rejects (
    file uuid not null references files (id) on delete cascade,
    number bigint not null,
    line bigint not null,
    reason text not null,
    raw text not null,
    primary key (file, number)
  )`.execute(db)
}
