-- The schema after every migration. Made by `bun scripts/dump-schema.ts`; do not edit.

--
-- PostgreSQL database dump
--

--
-- Name: task_status; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.task_status AS ENUM (
    'pending',
    'queued',
    'running',
    'retrying',
    'succeeded',
    'dead',
    'cancelled'
);

--
-- Name: bindings; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.bindings (
    exchange text NOT NULL,
    queue text NOT NULL,
    routing_key text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: consumers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.consumers (
    id uuid NOT NULL,
    queue text NOT NULL,
    target jsonb NOT NULL,
    concurrency integer NOT NULL,
    timeout_ms bigint NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    rate_limit jsonb,
    CONSTRAINT consumers_concurrency_check CHECK (((concurrency >= 1) AND (concurrency <= 10000)))
);

--
-- Name: counters; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.counters (
    node uuid NOT NULL,
    queue text NOT NULL,
    origin text NOT NULL,
    accepted bigint DEFAULT 0 NOT NULL,
    pruned bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

--
-- Name: events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.events (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    tasks integer NOT NULL,
    changes json
)
WITH (autovacuum_vacuum_scale_factor='0.1', autovacuum_vacuum_threshold='500');

--
-- Name: events_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: exchanges; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.exchanges (
    name text NOT NULL,
    type text NOT NULL,
    conflict text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: files; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.files (
    id uuid NOT NULL,
    source uuid NOT NULL,
    path text NOT NULL,
    generation integer DEFAULT 1 NOT NULL,
    size bigint,
    modified text,
    exact text,
    unsure_until timestamp with time zone,
    status text NOT NULL,
    stable integer DEFAULT 1 NOT NULL,
    stable_at timestamp with time zone DEFAULT now() NOT NULL,
    listed_at timestamp with time zone DEFAULT now() NOT NULL,
    marker text,
    asked boolean DEFAULT false NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    retry_at timestamp with time zone,
    paused boolean DEFAULT false NOT NULL,
    sha256 text,
    spool text,
    spool_node uuid,
    task uuid,
    bytes_read bigint DEFAULT 0 NOT NULL,
    records_read bigint DEFAULT 0 NOT NULL,
    records_rejected bigint DEFAULT 0 NOT NULL,
    attempt_at timestamp with time zone,
    attempt_bytes bigint,
    attempt_records bigint,
    checkpoint json,
    tasks jsonb,
    after text,
    after_at timestamp with time zone,
    after_failures integer DEFAULT 0 NOT NULL,
    after_error text,
    location text,
    duplicate_of uuid,
    error text,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    fetched_at timestamp with time zone,
    imported_at timestamp with time zone,
    finished_at timestamp with time zone
);

--
-- Name: fires; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.fires (
    id bigint NOT NULL,
    schedule text NOT NULL,
    fire_at timestamp with time zone NOT NULL,
    fired_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    outcome text NOT NULL,
    manual boolean DEFAULT false NOT NULL,
    task_id uuid,
    detail text
);

--
-- Name: fires_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.fires ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.fires_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.keys (
    id text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: kysely_migration; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kysely_migration (
    name character varying(255) NOT NULL,
    "timestamp" character varying(255) NOT NULL
);

--
-- Name: kysely_migration_lock; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kysely_migration_lock (
    id character varying(255) NOT NULL,
    is_locked integer DEFAULT 0 NOT NULL
);

--
-- Name: locks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.locks (
    name text NOT NULL,
    node uuid NOT NULL,
    taken_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: nodes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.nodes (
    id uuid NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    roles text[] NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    beat_at timestamp with time zone DEFAULT now() NOT NULL,
    steady_since timestamp with time zone DEFAULT now() NOT NULL,
    left_at timestamp with time zone,
    dead_at timestamp with time zone,
    started_tasks uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    state jsonb NOT NULL,
    broker text DEFAULT 'in-process'::text NOT NULL,
    confirmed bigint DEFAULT 0 NOT NULL,
    key_id text
);

--
-- Name: queues; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.queues (
    name text NOT NULL,
    type text DEFAULT 'quorum'::text NOT NULL,
    retry jsonb NOT NULL,
    retention jsonb NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    max_priority smallint,
    window_size integer,
    settlement text DEFAULT 'outcome'::text NOT NULL,
    dead_letter boolean DEFAULT true NOT NULL,
    dispatch_order text DEFAULT 'due'::text NOT NULL,
    report_within_ms bigint,
    conflict text,
    CONSTRAINT queues_max_priority_check CHECK (((max_priority >= 0) AND (max_priority <= 9))),
    CONSTRAINT queues_window_size_check CHECK ((window_size > 0))
);

--
-- Name: rejects; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rejects (
    file uuid NOT NULL,
    number bigint NOT NULL,
    line bigint NOT NULL,
    reason text NOT NULL,
    raw text NOT NULL
);

--
-- Name: schedules; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schedules (
    name text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    task json NOT NULL,
    queue text NOT NULL,
    overlap text NOT NULL,
    missed text NOT NULL,
    jitter_ms bigint NOT NULL,
    paused boolean NOT NULL,
    cursor timestamp with time zone NOT NULL,
    wake_at timestamp with time zone NOT NULL,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: settings; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.settings (
    name text NOT NULL,
    value jsonb NOT NULL
);

--
-- Name: sources; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.sources (
    id uuid NOT NULL,
    name text NOT NULL,
    settings jsonb NOT NULL,
    auth jsonb,
    secret bytea,
    secret_key text,
    paused boolean DEFAULT false NOT NULL,
    managed_by text,
    external_id text,
    gone_at timestamp with time zone,
    pinned jsonb,
    alert jsonb,
    next_poll_at timestamp with time zone NOT NULL,
    polled_at timestamp with time zone,
    listed_at timestamp with time zone,
    poll jsonb,
    poll_failures integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: tasks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tasks (
    id uuid NOT NULL,
    queue text NOT NULL,
    type text,
    payload json NOT NULL,
    target json,
    status public.task_status DEFAULT 'pending'::public.task_status NOT NULL,
    priority smallint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    lost_starts smallint DEFAULT 0 NOT NULL,
    timeout_ms bigint,
    idempotency_key text,
    fingerprint text,
    parent_id uuid,
    origin text NOT NULL,
    node uuid,
    claim_id uuid,
    cancel_requested boolean DEFAULT false NOT NULL,
    foreign_owner text,
    report_by timestamp with time zone,
    sealed boolean DEFAULT false NOT NULL,
    children_total integer DEFAULT 0 NOT NULL,
    children_succeeded integer DEFAULT 0 NOT NULL,
    children_dead integer DEFAULT 0 NOT NULL,
    result json,
    error text,
    progress json,
    logs jsonb,
    attempts jsonb DEFAULT '[]'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    traceparent text,
    publisher uuid,
    publish_no bigint,
    exchange text,
    routing_key text,
    message json,
    CONSTRAINT tasks_priority_check CHECK (((priority >= 0) AND (priority <= 9)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_insert_scale_factor='0.2', autovacuum_analyze_scale_factor='0.1', autovacuum_vacuum_cost_delay='1');

--
-- Name: tokens; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tokens (
    consumer uuid NOT NULL,
    tokens double precision NOT NULL,
    refilled_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor='50');

--
-- Name: bindings bindings_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.bindings
    ADD CONSTRAINT bindings_pkey PRIMARY KEY (exchange, queue, routing_key);

--
-- Name: consumers consumers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_pkey PRIMARY KEY (id);

--
-- Name: counters counters_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (node, queue, origin);

--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);

--
-- Name: exchanges exchanges_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.exchanges
    ADD CONSTRAINT exchanges_pkey PRIMARY KEY (name);

--
-- Name: files files_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (id);

--
-- Name: files files_source_path_generation_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_source_path_generation_key UNIQUE (source, path, generation);

--
-- Name: fires fires_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.fires
    ADD CONSTRAINT fires_pkey PRIMARY KEY (id);

--
-- Name: keys keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);

--
-- Name: kysely_migration_lock kysely_migration_lock_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kysely_migration_lock
    ADD CONSTRAINT kysely_migration_lock_pkey PRIMARY KEY (id);

--
-- Name: kysely_migration kysely_migration_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kysely_migration
    ADD CONSTRAINT kysely_migration_pkey PRIMARY KEY (name);

--
-- Name: locks locks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.locks
    ADD CONSTRAINT locks_pkey PRIMARY KEY (name);

--
-- Name: nodes nodes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);

--
-- Name: queues queues_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

--
-- Name: rejects rejects_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rejects
    ADD CONSTRAINT rejects_pkey PRIMARY KEY (file, number);

--
-- Name: schedules schedules_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (name);

--
-- Name: settings settings_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (name);

--
-- Name: sources sources_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sources
    ADD CONSTRAINT sources_name_key UNIQUE (name);

--
-- Name: sources sources_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (id);

--
-- Name: tasks tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);

--
-- Name: tokens tokens_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT tokens_pkey PRIMARY KEY (consumer);

--
-- Name: bindings_queue; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bindings_queue ON public.bindings USING btree (queue);

--
-- Name: consumers_queue; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX consumers_queue ON public.consumers USING btree (queue);

--
-- Name: files_after; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_after ON public.files USING btree (source, after_at) WHERE (after = 'pending'::text);

--
-- Name: files_content; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_content ON public.files USING btree (source, sha256) WHERE (sha256 IS NOT NULL);

--
-- Name: files_source; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_source ON public.files USING btree (source, seen_at, id);

--
-- Name: files_task; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_task ON public.files USING btree (task) WHERE (task IS NOT NULL);

--
-- Name: files_unfinished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_unfinished ON public.files USING btree (task) WHERE ((finished_at IS NULL) AND (task IS NOT NULL));

--
-- Name: files_waiting; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX files_waiting ON public.files USING btree (source, status) WHERE (status = ANY (ARRAY['seen'::text, 'ready'::text, 'fetching'::text]));

--
-- Name: fires_schedule; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX fires_schedule ON public.fires USING btree (schedule, id);

--
-- Name: schedules_wake; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX schedules_wake ON public.schedules USING btree (wake_at) WHERE (NOT paused);

--
-- Name: sources_due; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sources_due ON public.sources USING btree (next_poll_at) WHERE ((NOT paused) AND (alert IS NULL) AND (gone_at IS NULL));

--
-- Name: sources_external; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX sources_external ON public.sources USING btree (managed_by, external_id) WHERE (managed_by IS NOT NULL);

--
-- Name: sources_secret_key; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX sources_secret_key ON public.sources USING btree (secret_key) WHERE (secret IS NOT NULL);

--
-- Name: tasks_created; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_created ON public.tasks USING btree (created_at, id);

--
-- Name: tasks_exchange_idempotency; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX tasks_exchange_idempotency ON public.tasks USING btree (exchange, idempotency_key) WHERE ((exchange IS NOT NULL) AND (idempotency_key IS NOT NULL));

--
-- Name: tasks_finished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_finished ON public.tasks USING btree (queue, status, finished_at) WHERE (status = ANY (ARRAY['succeeded'::public.task_status, 'dead'::public.task_status, 'cancelled'::public.task_status]));

--
-- Name: tasks_idempotency; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX tasks_idempotency ON public.tasks USING btree (queue, idempotency_key) WHERE (idempotency_key IS NOT NULL);

--
-- Name: tasks_parent; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_parent ON public.tasks USING btree (parent_id, created_at, id) WHERE (parent_id IS NOT NULL);

--
-- Name: tasks_queued; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_queued ON public.tasks USING btree (queue, publisher, publish_no) WHERE (status = 'queued'::public.task_status);

--
-- Name: tasks_unfinished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_unfinished ON public.tasks USING btree (status, created_at, id) INCLUDE (queue) WHERE (status <> 'succeeded'::public.task_status);

--
-- Name: tasks_waiting; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_waiting ON public.tasks USING btree (queue, priority, due_at, id) WHERE (status = ANY (ARRAY['pending'::public.task_status, 'retrying'::public.task_status]));

--
-- Name: bindings bindings_exchange_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.bindings
    ADD CONSTRAINT bindings_exchange_fkey FOREIGN KEY (exchange) REFERENCES public.exchanges(name) ON DELETE CASCADE;

--
-- Name: bindings bindings_queue_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.bindings
    ADD CONSTRAINT bindings_queue_fkey FOREIGN KEY (queue) REFERENCES public.queues(name) ON DELETE CASCADE;

--
-- Name: consumers consumers_queue_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_queue_fkey FOREIGN KEY (queue) REFERENCES public.queues(name);

--
-- Name: files files_source_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.files
    ADD CONSTRAINT files_source_fkey FOREIGN KEY (source) REFERENCES public.sources(id) ON DELETE CASCADE;

--
-- Name: fires fires_schedule_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.fires
    ADD CONSTRAINT fires_schedule_fkey FOREIGN KEY (schedule) REFERENCES public.schedules(name) ON DELETE CASCADE;

--
-- Name: rejects rejects_file_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rejects
    ADD CONSTRAINT rejects_file_fkey FOREIGN KEY (file) REFERENCES public.files(id) ON DELETE CASCADE;

--
-- Name: tokens tokens_consumer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT tokens_consumer_fkey FOREIGN KEY (consumer) REFERENCES public.consumers(id) ON DELETE CASCADE;

--
-- PostgreSQL database dump complete
--
