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
    state jsonb NOT NULL
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
    updated_at timestamp with time zone DEFAULT now() NOT NULL
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
    CONSTRAINT tasks_priority_check CHECK (((priority >= 0) AND (priority <= 9)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_insert_scale_factor='0.2', autovacuum_analyze_scale_factor='0.1', autovacuum_vacuum_cost_delay='1');

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
-- Name: tasks tasks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);

--
-- Name: consumers_queue; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX consumers_queue ON public.consumers USING btree (queue);

--
-- Name: fires_schedule; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX fires_schedule ON public.fires USING btree (schedule, id);

--
-- Name: schedules_wake; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX schedules_wake ON public.schedules USING btree (wake_at) WHERE (NOT paused);

--
-- Name: tasks_created; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_created ON public.tasks USING btree (created_at, id);

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
-- Name: tasks_unfinished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_unfinished ON public.tasks USING btree (status, created_at, id) INCLUDE (queue) WHERE (status <> 'succeeded'::public.task_status);

--
-- Name: tasks_waiting; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX tasks_waiting ON public.tasks USING btree (queue, priority, due_at, id) WHERE (status = ANY (ARRAY['pending'::public.task_status, 'retrying'::public.task_status]));

--
-- Name: consumers consumers_queue_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_queue_fkey FOREIGN KEY (queue) REFERENCES public.queues(name);

--
-- Name: fires fires_schedule_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.fires
    ADD CONSTRAINT fires_schedule_fkey FOREIGN KEY (schedule) REFERENCES public.schedules(name) ON DELETE CASCADE;

--
-- PostgreSQL database dump complete
--
