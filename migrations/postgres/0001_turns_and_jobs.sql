-- least-binary: 0.1.0
--
-- The turn row, the nodes, the beats, the jobs and their attempts, and the functions that nodes call, one
-- a statement. A function never changes what it means: a later need is a further function (or a further
-- signature), so that binaries of several versions can share the schema.
--
-- Every name is qualified, so that no function needs a search_path of its own.

-- The clock -------------------------------------------------------------------------------------------

-- The one clock that slots, leases and due times are taken from.
CREATE FUNCTION turnwise.clock() RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;

-- Microseconds since the Unix epoch. Infinite times come out as far away, not as an error.
CREATE FUNCTION turnwise.micros(moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN moment < '1700-01-01 00:00:00+00' THEN -8520336000000000
        WHEN moment > '2260-01-01 00:00:00+00' THEN 9151488000000000
        ELSE (extract(epoch FROM moment) * 1000000)::bigint
    END
$$;

-- The instant of so many microseconds since the Unix epoch.
CREATE FUNCTION turnwise.instant(micros bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $$ SELECT timestamptz '1970-01-01 00:00:00+00' + micros * interval '1 microsecond' $$;

-- An id that sorts by its time: UUID version 7 (RFC 9562, section 5.7).
CREATE FUNCTION turnwise.uuid7() RETURNS uuid
LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- When the server process started: another start may be another clock.
CREATE FUNCTION turnwise.server_started() RETURNS bigint
LANGUAGE sql STABLE AS $$ SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint $$;

-- The timeline of the server's history: another one after a promotion. The first eight digits of the name
-- of a WAL file.
CREATE FUNCTION turnwise.server_timeline() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
$$;

-- Tables ----------------------------------------------------------------------------------------------

-- One row. Every statement of a turn locks it first. Room for many versions of it in its page, and no
-- index but the key, so that each update stays in the page.
CREATE TABLE turnwise.turn (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    epoch bigint NOT NULL DEFAULT 0,
    high bigint NOT NULL DEFAULT 0,
    slot bigint NOT NULL DEFAULT 0,
    previous bigint NOT NULL DEFAULT 0,
    bias bigint NOT NULL DEFAULT 0,
    period_ms integer CHECK (period_ms BETWEEN 50 AND 10000),
    next_period_ms integer CHECK (next_period_ms BETWEEN 50 AND 10000),
    next_period_from bigint,
    versions jsonb NOT NULL DEFAULT '[]',
    deputies jsonb NOT NULL DEFAULT '[]',
    marks jsonb NOT NULL DEFAULT '{}',
    beaten_at timestamptz,
    refused bigint NOT NULL DEFAULT 0,
    stale_ends bigint NOT NULL DEFAULT 0,
    CHECK ((next_period_ms IS NULL) = (next_period_from IS NULL))
) WITH (fillfactor = 10, toast_tuple_target = 8160);
INSERT INTO turnwise.turn DEFAULT VALUES;

CREATE TABLE turnwise.nodes (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'left', 'lost')),
    lease_until timestamptz NOT NULL,
    token_floor bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL,
    last_check_in timestamptz NOT NULL,
    capacity integer NOT NULL,
    running integer NOT NULL DEFAULT 0,
    offset_us bigint,
    offset_error_us bigint,
    transit_us bigint,
    version text NOT NULL
) WITH (fillfactor = 30);

-- One row an accepted beat: anyone can check that the farm polls once a period.
CREATE TABLE turnwise.beats (
    slot bigint PRIMARY KEY,
    node uuid NOT NULL,
    arrived_at timestamptz NOT NULL,
    claimed integer NOT NULL
);

-- `INSERT INTO turnwise.jobs (url) VALUES ('/jobs/x')` is enough, in the app's own transaction.
CREATE TABLE turnwise.jobs (
    id uuid PRIMARY KEY DEFAULT turnwise.uuid7(),
    queue text NOT NULL DEFAULT 'default',
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'succeeded', 'dead', 'cancelled')),
    method text NOT NULL DEFAULT 'POST',
    url text NOT NULL,
    headers jsonb,
    body bytea,
    priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    scheduled_at timestamptz NOT NULL DEFAULT turnwise.clock(),
    created_at timestamptz NOT NULL DEFAULT turnwise.clock(),
    -- When scheduled_at was last set: tells, after a step of the clock, what was due from what was to wait.
    queued_at timestamptz NOT NULL DEFAULT turnwise.clock(),
    max_attempts integer NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    deadline_ms bigint NOT NULL DEFAULT 600000 CHECK (deadline_ms >= 1),
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt BETWEEN 0 AND 1000000),
    hand_backs integer NOT NULL DEFAULT 0 CHECK (hand_backs BETWEEN 0 AND 1000000),
    cancel_requested boolean NOT NULL DEFAULT false,
    node uuid,
    token bigint,
    started_at timestamptz,
    finished_at timestamptz,
    last_status integer,
    last_error text,
    CHECK (state <> 'running' OR (node IS NOT NULL AND token IS NOT NULL AND started_at IS NOT NULL)),
    -- A claim is as large as its jobs: each has an end. (A body that is too long is not read.)
    CONSTRAINT queue_has_at_most_128_bytes CHECK (octet_length(queue) <= 128),
    CONSTRAINT method_has_at_most_32_bytes CHECK (octet_length(method) <= 32),
    CONSTRAINT url_has_at_most_8_kib CHECK (octet_length(url) <= 8192),
    CONSTRAINT headers_have_at_most_32_kib CHECK (octet_length(headers::text) <= 32768)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1
);

-- Jobs of one queue and priority are due in the order of their times: a lane. A claim looks at the head of
-- each lane, so that it never reads a job that is not due, however many wait.
CREATE INDEX jobs_queued ON turnwise.jobs (queue, priority, scheduled_at) WHERE state = 'queued';
CREATE INDEX jobs_running ON turnwise.jobs (node) WHERE state = 'running';

-- One row an attempt that has ended; a running one stands in its job's row alone.
CREATE TABLE turnwise.attempts (
    job uuid NOT NULL,
    node uuid NOT NULL,
    token bigint NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    status integer,
    error text,
    answer bytea,
    PRIMARY KEY (job, node, token)
);

-- What the functions answer ---------------------------------------------------------------------------

CREATE TYPE turnwise.claimed_job AS (
    id text, token bigint, queue text, method text, url text, headers text, body bytea,
    body_bytes bigint, attempt bigint, max_attempts bigint, hand_backs bigint, deadline_ms bigint,
    scheduled_at bigint
);

-- Jobs first, with the columns of the turn empty; the turn row last, with the columns of a job empty.
CREATE TYPE turnwise.turn_answer AS (
    id text, token bigint, queue text, method text, url text, headers text, body bytea,
    body_bytes bigint, attempt bigint, max_attempts bigint, hand_backs bigint, deadline_ms bigint,
    scheduled_at bigint,
    epoch bigint, high bigint, slot bigint, previous bigint, bias bigint, period_ms integer,
    next_period_ms integer, next_period_from bigint, versions text, deputies text, marks text,
    started bigint, timeline bigint, done boolean, lost boolean, arrived bigint, answered bigint
);

-- Helpers ---------------------------------------------------------------------------------------------

-- floor(a / b) for b > 0.
CREATE FUNCTION turnwise.floor_div(a bigint, b bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT a / b - CASE WHEN a % b < 0 THEN 1 ELSE 0 END $$;

-- How long a check-in proves that a node lives: 5/2 of the period, at least 2.5 s.
CREATE FUNCTION turnwise.lease(period_ms integer) RETURNS interval
LANGUAGE sql IMMUTABLE AS $$ SELECT (greatest(period_ms, 1000) * 5 / 2) * interval '1 millisecond' $$;

-- The engine's `TurnRow::stamp`: the row after a statement that got its lock and then read `clock_us`.
-- The statement's slot is the `high` of what comes back.
CREATE FUNCTION turnwise.stamped(r turnwise.turn, clock_us bigint, sender uuid, believed bigint)
RETURNS turnwise.turn LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    period_us bigint := r.period_ms * 1000::bigint;
    next_us bigint := r.next_period_ms * 1000::bigint;
    next_bias bigint;
    now bigint;
    there bigint;
    grace bigint;
BEGIN
    IF period_us IS NULL THEN
        RAISE EXCEPTION 'no period is agreed in this database yet: start a node';
    END IF;
    now := turnwise.floor_div(clock_us + period_us / 2, period_us) + r.bias;
    IF r.next_period_from IS NOT NULL THEN
        next_bias := r.next_period_from
            + turnwise.floor_div(-((r.next_period_from - r.bias) * period_us), next_us);
        there := turnwise.floor_div(clock_us + next_us / 2, next_us) + next_bias;
        IF now >= r.next_period_from AND there >= r.next_period_from THEN
            now := there;
            r.period_ms := r.next_period_ms;
            r.bias := next_bias;
            r.next_period_ms := NULL;
            r.next_period_from := NULL;
            period_us := next_us;
        ELSE
            now := least(now, r.next_period_from - 1);
        END IF;
    END IF;
    IF now + 1 < r.high THEN
        grace := coalesce(jsonb_array_length(r.versions -> -1 -> 'ring'), 0) + 2;
        now := greatest(r.high, least(
            coalesce(believed, r.high), r.high + grace, r.next_period_from - 1));
        r.bias := now - turnwise.floor_div(clock_us + period_us / 2, period_us);
    END IF;
    now := greatest(now, r.high);
    r.high := now;
    IF sender IS NOT NULL THEN
        grace := 2;
        FOR i IN REVERSE jsonb_array_length(r.versions) - 1 .. 0 LOOP
            grace := greatest(grace, jsonb_array_length(r.versions -> i -> 'ring') + 2);
            EXIT WHEN (r.versions -> i ->> 'from')::bigint <= now;
        END LOOP;
        r.marks := r.marks
            || jsonb_build_object(sender::text, jsonb_build_array(now, now + grace - 1));
    END IF;
    RETURN r;
END $$;

-- The nodes of any version, and all that hold or held an office.
CREATE FUNCTION turnwise.roster_nodes(versions jsonb, deputies jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE AS $$
    SELECT n.id FROM jsonb_array_elements(versions) v, jsonb_array_elements_text(v -> 'ring') n (id)
    UNION
    SELECT d ->> 'deputy' FROM jsonb_array_elements(deputies) d
$$;

-- The engine's `TurnRow::all_lapsed`: whether no node but `except` can act on what it read.
CREATE FUNCTION turnwise.all_lapsed(r turnwise.turn, except_node uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT EXISTS (
        SELECT FROM turnwise.roster_nodes(r.versions, r.deputies) n (id)
        WHERE n.id IS DISTINCT FROM except_node::text
            AND (r.marks -> n.id ->> 1)::bigint >= r.high)
$$;

-- A check-in renews the lease. The node's lowest token that may still claim; null when the node is not
-- known or was declared lost. Holds the node's row until the end of the transaction.
CREATE FUNCTION turnwise.check_in(
    p_node uuid, p_at timestamptz, p_period_ms integer,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint;
BEGIN
    UPDATE turnwise.nodes n SET
        last_check_in = p_at, lease_until = p_at + turnwise.lease(p_period_ms), running = p_running,
        offset_us = p_offset_us, offset_error_us = p_offset_error_us, transit_us = p_transit_us
    WHERE n.id = p_node AND n.state <> 'lost'
    RETURNING n.token_floor INTO lowest;
    RETURN lowest;
END $$;

-- Claim up to `p_limit` jobs that are due at `p_due`, the longest waiting first, where each point of
-- priority counts as ten seconds of waiting. From `p_queues` (null: from all) but for `p_except` (null: none). The
-- caller holds the node's row.
CREATE FUNCTION turnwise.take(
    p_node uuid, p_token bigint, p_limit integer, p_queues text[], p_except text[],
    p_due timestamptz, p_at timestamptz
) RETURNS SETOF turnwise.claimed_job LANGUAGE plpgsql AS $$
DECLARE
    heads uuid[];
BEGIN
    WITH RECURSIVE queue (name) AS (
        -- The queues that have jobs, each found by one probe of the index.
        (SELECT j.queue FROM turnwise.jobs j
            WHERE j.state = 'queued' AND p_queues IS NULL ORDER BY j.queue LIMIT 1)
        UNION ALL
        SELECT (SELECT j.queue FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue > q.name ORDER BY j.queue LIMIT 1)
        FROM queue q WHERE q.name IS NOT NULL
    ), wanted (name) AS (
        SELECT q.name FROM queue q
        WHERE q.name IS NOT NULL AND q.name <> ALL (coalesce(p_except, '{}'))
        UNION
        SELECT u.name FROM unnest(p_queues) u (name)
        WHERE u.name <> ALL (coalesce(p_except, '{}'))
    ), lane (queue, priority) AS (
        SELECT w.name, (SELECT j.priority FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = w.name ORDER BY j.priority LIMIT 1)
        FROM wanted w
        UNION ALL
        SELECT l.queue, (SELECT j.priority FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority > l.priority
            ORDER BY j.priority LIMIT 1)
        FROM lane l WHERE l.priority IS NOT NULL
    ), share (queue, priority, jobs) AS MATERIALIZED (
        -- How many of the first `p_limit` jobs come from each lane: nothing is locked for this, so that
        -- no more rows are locked below than are taken.
        SELECT first.queue, first.priority, count(*)
        FROM (
            SELECT l.queue, l.priority
            FROM lane l CROSS JOIN LATERAL (
                SELECT j.scheduled_at FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                    AND j.scheduled_at <= p_due
                ORDER BY j.scheduled_at LIMIT p_limit
            ) due
            ORDER BY due.scheduled_at - l.priority * interval '10 s' LIMIT p_limit
        ) first
        GROUP BY first.queue, first.priority
    )
    SELECT array_agg(due.id) INTO heads
    FROM share s CROSS JOIN LATERAL (
        SELECT j.id FROM turnwise.jobs j
        WHERE j.state = 'queued' AND j.queue = s.queue AND j.priority = s.priority
            AND j.scheduled_at <= p_due
        ORDER BY j.scheduled_at LIMIT s.jobs FOR UPDATE SKIP LOCKED
    ) due;
    IF heads IS NULL THEN
        RETURN;
    END IF;
    -- By an array, since no estimate of the above is near the truth and a join would be planned by it.
    RETURN QUERY
    WITH taken AS (
        UPDATE turnwise.jobs j SET
            state = 'running', node = p_node, token = p_token, started_at = p_at,
            attempt = j.attempt + 1
        WHERE j.id = ANY (heads)
        RETURNING j.id, j.queue, j.method, j.url, j.headers, j.body, j.attempt, j.max_attempts,
            j.hand_backs, j.deadline_ms, j.scheduled_at, j.priority
    )
    SELECT t.id::text, p_token, t.queue, t.method, t.url, t.headers::text,
        CASE WHEN octet_length(t.body) <= 262144 THEN t.body END,
        coalesce(octet_length(t.body), 0)::bigint, t.attempt::bigint, t.max_attempts::bigint,
        t.hand_backs::bigint, t.deadline_ms, turnwise.micros(t.scheduled_at)
    FROM taken t
    ORDER BY t.scheduled_at - t.priority * interval '10 s', t.id;
END $$;

-- Declare lost the nodes that hold jobs and whose lease has run out, and free up to a thousand jobs of
-- lost and unknown nodes. How many rows that changed.
CREATE FUNCTION turnwise.rescue(p_at timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    dead uuid[];
    victims uuid[];
    changed bigint;
    freed bigint;
BEGIN
    WITH RECURSIVE holder (node) AS (
        (SELECT j.node FROM turnwise.jobs j WHERE j.state = 'running' ORDER BY j.node LIMIT 1)
        UNION ALL
        SELECT (SELECT j.node FROM turnwise.jobs j
            WHERE j.state = 'running' AND j.node > h.node ORDER BY j.node LIMIT 1)
        FROM holder h WHERE h.node IS NOT NULL
    )
    SELECT array_agg(h.node) INTO dead
    FROM holder h LEFT JOIN turnwise.nodes n ON n.id = h.node
    WHERE h.node IS NOT NULL AND (n.id IS NULL OR n.state = 'lost' OR n.lease_until < p_at);
    IF dead IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE turnwise.nodes n SET state = 'lost'
    WHERE n.id = ANY (dead) AND n.state <> 'lost' AND n.lease_until < p_at;
    GET DIAGNOSTICS changed = ROW_COUNT;
    -- A node that renewed its lease meanwhile is not lost: look again.
    SELECT array_agg(v.id) INTO victims
    FROM (
        SELECT j.id FROM turnwise.jobs j
        WHERE j.state = 'running' AND j.node = ANY (dead) AND NOT EXISTS (
            SELECT FROM turnwise.nodes n WHERE n.id = j.node AND n.state <> 'lost')
        LIMIT 1000 FOR UPDATE OF j SKIP LOCKED
    ) v;
    WITH freed AS (
        UPDATE turnwise.jobs j SET
            state = CASE
                WHEN j.cancel_requested THEN 'cancelled'
                WHEN j.attempt >= j.max_attempts THEN 'dead'
                ELSE 'queued' END,
            finished_at = CASE
                WHEN j.cancel_requested OR j.attempt >= j.max_attempts THEN p_at END,
            scheduled_at = least(j.scheduled_at, p_at), queued_at = p_at,
            last_status = NULL, last_error = 'node lost'
        WHERE j.id = ANY (victims)
        RETURNING j.id, j.node, j.token, j.attempt, j.started_at
    )
    INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at, error)
    SELECT f.id, f.node, f.token, f.attempt, f.started_at, p_at, 'node lost' FROM freed f
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS freed = ROW_COUNT;
    RETURN changed + freed;
END $$;

-- Statements on the turn row --------------------------------------------------------------------------
-- Lock order everywhere: the turn row, then nodes, then jobs. The clock is read once the lock is held.

-- Read the row, leaving the sender's mark. A null node leaves none.
CREATE FUNCTION turnwise.turn_read(
    p_node uuid, p_believed bigint,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.turn_answer LANGUAGE plpgsql AS $$
DECLARE
    r turnwise.turn;
    at timestamptz;
    lowest bigint;
BEGIN
    SELECT t.* INTO r FROM turnwise.turn t WHERE t.id = 1 FOR UPDATE;
    at := turnwise.clock();
    r := turnwise.stamped(r, turnwise.micros(at), p_node, p_believed);
    lowest := turnwise.check_in(
        p_node, at, r.period_ms, p_running, p_offset_us, p_offset_error_us, p_transit_us);
    UPDATE turnwise.turn t SET
        high = r.high, bias = r.bias, period_ms = r.period_ms, next_period_ms = r.next_period_ms,
        next_period_from = r.next_period_from, marks = r.marks
    WHERE t.id = 1;
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY SELECT
        NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), true, lowest IS NULL,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- Take the slot's turn: one beat a slot is accepted. An accepted beat looks after the farm (steps of the
-- clock, outages, lost nodes), then claims up to `p_limit` jobs. A beat that changed nothing does not wait
-- for the disk: a server that crashes may forget it, and nothing hangs on it.
CREATE FUNCTION turnwise.turn_beat(
    p_node uuid, p_believed bigint, p_token bigint, p_limit integer, p_queues text[], p_except text[],
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.turn_answer LANGUAGE plpgsql AS $$
DECLARE
    r turnwise.turn;
    at timestamptz;
    lowest bigint;
    accepted boolean;
    rows bigint;
    claimed bigint := 0;
    changed bigint := 0;
BEGIN
    SELECT t.* INTO r FROM turnwise.turn t WHERE t.id = 1 FOR UPDATE;
    at := turnwise.clock();
    r := turnwise.stamped(r, turnwise.micros(at), p_node, p_believed);
    lowest := turnwise.check_in(
        p_node, at, r.period_ms, p_running, p_offset_us, p_offset_error_us, p_transit_us);
    accepted := r.slot < r.high;
    IF accepted THEN
        r.previous := r.slot;
        r.slot := r.high;
        IF at < r.beaten_at THEN
            -- The clock was set back: what was due stays due, and no lease outlasts its length.
            UPDATE turnwise.nodes n SET lease_until = at + turnwise.lease(r.period_ms)
            WHERE n.lease_until > at + turnwise.lease(r.period_ms);
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
            UPDATE turnwise.jobs j SET
                queued_at = at,
                scheduled_at = CASE
                    WHEN j.attempt > 0 THEN j.scheduled_at - (j.queued_at - at)
                    WHEN j.scheduled_at <= j.queued_at THEN least(j.scheduled_at, at)
                    ELSE j.scheduled_at END
            WHERE j.id IN (
                SELECT q.id FROM turnwise.jobs q
                WHERE q.state = 'queued' AND q.queued_at > at FOR UPDATE SKIP LOCKED);
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        IF r.slot - r.previous = 2 THEN
            -- A living node may not have reached the database in the missed slot either: the slot counts for
            -- no lease. (A node that checked in last at c is then found by the first beat from c + 3.5 P on,
            -- at the latest at c + 4.5 P: no later than one whose missed slot comes after its lease.)
            UPDATE turnwise.nodes n SET
                lease_until = n.lease_until + r.period_ms * interval '1 millisecond'
            WHERE n.lease_until >= r.beaten_at;
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        IF r.slot - r.previous > 2 THEN
            -- Nobody beat for a while: the database was away, not the nodes.
            UPDATE turnwise.nodes n SET lease_until = at + turnwise.lease(r.period_ms)
            WHERE n.lease_until >= r.beaten_at;
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        changed := changed + turnwise.rescue(at);
        IF p_limit > 0 AND p_token >= lowest THEN
            RETURN QUERY SELECT
                c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                NULL::bigint, NULL::bigint, NULL::boolean, NULL::boolean, NULL::bigint, NULL::bigint
            FROM turnwise.take(
                p_node, p_token, p_limit, p_queues, p_except,
                -- A beat that came a little before its boundary claims what is due on it.
                greatest(at, least(
                    turnwise.instant((r.slot - r.bias) * r.period_ms * 1000),
                    at + interval '5 ms')),
                at) c;
            GET DIAGNOSTICS claimed = ROW_COUNT;
        END IF;
        r.beaten_at := at;
        INSERT INTO turnwise.beats (slot, node, arrived_at, claimed)
        VALUES (r.slot, p_node, now(), claimed)
        ON CONFLICT (slot) DO UPDATE SET
            node = excluded.node, arrived_at = excluded.arrived_at, claimed = excluded.claimed;
        IF r.slot % 64 = 0 THEN
            DELETE FROM turnwise.beats b WHERE b.slot IN (
                SELECT o.slot FROM turnwise.beats o WHERE o.slot <= r.slot - 86400
                ORDER BY o.slot LIMIT 1000);
        END IF;
    ELSE
        r.refused := r.refused + 1;
    END IF;
    UPDATE turnwise.turn t SET
        high = r.high, slot = r.slot, previous = r.previous, bias = r.bias, period_ms = r.period_ms,
        next_period_ms = r.next_period_ms, next_period_from = r.next_period_from, marks = r.marks,
        beaten_at = r.beaten_at, refused = r.refused
    WHERE t.id = 1;
    IF claimed + changed = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY SELECT
        NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), accepted, lowest IS NULL,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- The engine's `TurnRow::change`: compare and set. A null node is the command line. `p_victims` is a list
-- of [id, slot of its last read as seen, or null].
CREATE FUNCTION turnwise.turn_change(
    p_node uuid, p_believed bigint, p_started bigint, p_timeline bigint,
    p_epoch bigint, p_latest bigint, p_victims jsonb, p_takeover boolean, p_forgets_sender boolean,
    p_versions jsonb, p_deputies jsonb, p_next_period_ms integer, p_next_period_from bigint,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.turn_answer LANGUAGE plpgsql AS $$
DECLARE
    r turnwise.turn;
    at timestamptz;
    lowest bigint;
    committed boolean;
BEGIN
    SELECT t.* INTO r FROM turnwise.turn t WHERE t.id = 1 FOR UPDATE;
    at := turnwise.clock();
    r := turnwise.stamped(r, turnwise.micros(at), p_node, p_believed);
    lowest := turnwise.check_in(
        p_node, at, r.period_ms, p_running, p_offset_us, p_offset_error_us, p_transit_us);
    committed := turnwise.server_started() = p_started AND turnwise.server_timeline() = p_timeline
        AND r.epoch = p_epoch AND r.high <= p_latest
        AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(p_victims) v
            WHERE (r.marks -> (v ->> 0) ->> 0)::bigint IS DISTINCT FROM (v ->> 1)::bigint)
        AND (NOT p_takeover OR turnwise.all_lapsed(r, p_node));
    IF committed THEN
        r.epoch := r.epoch + 1;
        r.versions := p_versions;
        r.deputies := p_deputies;
        -- A change of the period that has been made since this was computed is not pending any more.
        IF r.high < p_next_period_from THEN
            r.next_period_ms := p_next_period_ms;
            r.next_period_from := p_next_period_from;
        ELSE
            r.next_period_ms := NULL;
            r.next_period_from := NULL;
        END IF;
        IF p_forgets_sender AND p_node IS NOT NULL THEN
            r.marks := r.marks - p_node::text;
        END IF;
        r.marks := (
            SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
            FROM jsonb_each(r.marks) m
            WHERE (m.value ->> 1)::bigint >= r.high
                OR m.key IN (SELECT turnwise.roster_nodes(p_versions, p_deputies)));
    ELSE
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    UPDATE turnwise.turn t SET
        epoch = r.epoch, high = r.high, bias = r.bias, period_ms = r.period_ms,
        next_period_ms = r.next_period_ms, next_period_from = r.next_period_from,
        versions = r.versions, deputies = r.deputies, marks = r.marks
    WHERE t.id = 1;
    RETURN QUERY SELECT
        NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), committed, lowest IS NULL,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- Statements on the jobs ------------------------------------------------------------------------------

-- The period in force, for leases.
CREATE FUNCTION turnwise.period_ms() RETURNS integer
LANGUAGE sql STABLE AS $$ SELECT coalesce((SELECT t.period_ms FROM turnwise.turn t WHERE t.id = 1), 1000) $$;

-- Renew the lease; whether the node is lost.
CREATE FUNCTION turnwise.node_renew(
    p_node uuid, p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN turnwise.check_in(
        p_node, turnwise.clock(), turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us) IS NULL;
END $$;

-- Claim outside the turn. One row of nulls: the node is lost.
CREATE FUNCTION turnwise.jobs_claim(
    p_node uuid, p_token bigint, p_limit integer, p_queues text[], p_except text[],
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.claimed_job LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint;
    at timestamptz;
    claimed bigint := 0;
BEGIN
    lowest := turnwise.check_in(
        p_node, turnwise.clock(), turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us);
    IF lowest IS NULL THEN
        RETURN NEXT NULL::turnwise.claimed_job;
        RETURN;
    END IF;
    at := turnwise.clock();
    IF p_token >= lowest THEN
        RETURN QUERY
        SELECT * FROM turnwise.take(p_node, p_token, p_limit, p_queues, p_except, at, at);
        GET DIAGNOSTICS claimed = ROW_COUNT;
    END IF;
    IF claimed = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;

-- Bar a token and all before it from claiming, and return the jobs that run under it. One row of nulls:
-- the node is lost.
CREATE FUNCTION turnwise.jobs_recover(
    p_node uuid, p_token bigint,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.claimed_job LANGUAGE plpgsql AS $$
BEGIN
    IF turnwise.check_in(
        p_node, turnwise.clock(), turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us) IS NULL
    THEN
        RETURN NEXT NULL::turnwise.claimed_job;
        RETURN;
    END IF;
    UPDATE turnwise.nodes n SET token_floor = greatest(n.token_floor, p_token + 1)
    WHERE n.id = p_node;
    RETURN QUERY
    SELECT j.id::text, j.token, j.queue, j.method, j.url, j.headers::text,
        CASE WHEN octet_length(j.body) <= 262144 THEN j.body END,
        coalesce(octet_length(j.body), 0)::bigint, j.attempt::bigint, j.max_attempts::bigint,
        j.hand_backs::bigint, j.deadline_ms, turnwise.micros(j.scheduled_at)
    FROM turnwise.jobs j
    WHERE j.state = 'running' AND j.node = p_node AND j.token = p_token
    ORDER BY j.scheduled_at - j.priority * interval '10 s', j.id;
END $$;

-- Put jobs that run under a node back into the queue, for `p_reason`: the attempt not spent, up to ten
-- hand-backs. The caller holds the node's row, so that no end comes between.
CREATE FUNCTION turnwise.put_back(p_node uuid, p_jobs uuid[], p_reason text, p_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH held AS MATERIALIZED (
        SELECT j.id, j.token, j.attempt, j.hand_backs >= 10 AS is_spent,
            j.hand_backs >= 10 AND j.attempt >= j.max_attempts AS is_dead
        FROM turnwise.jobs j
        WHERE j.id = ANY (p_jobs) AND j.state = 'running' AND j.node = p_node
    ), released AS (
        UPDATE turnwise.jobs j SET
            state = CASE
                WHEN j.cancel_requested THEN 'cancelled'
                WHEN h.is_dead THEN 'dead'
                ELSE 'queued' END,
            finished_at = CASE WHEN j.cancel_requested OR h.is_dead THEN p_at END,
            attempt = CASE WHEN h.is_spent THEN j.attempt ELSE greatest(j.attempt - 1, 0) END,
            hand_backs = CASE WHEN h.is_spent THEN j.hand_backs ELSE j.hand_backs + 1 END,
            queued_at = p_at, last_status = NULL, last_error = p_reason
        FROM held h
        WHERE j.id = h.id AND j.state = 'running' AND j.node = p_node AND j.token = h.token
        RETURNING j.id, h.token, h.attempt, j.started_at
    )
    INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at, error)
    SELECT r.id, p_node, r.token, r.attempt, r.started_at, p_at, p_reason FROM released r
    ON CONFLICT DO NOTHING;
END $$;

-- Bar a token and all before it from claiming, and put the jobs that run under it back into the queue, for
-- `p_reason`. Whether the node is lost.
CREATE FUNCTION turnwise.jobs_release(
    p_node uuid, p_token bigint, p_reason text,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := turnwise.clock();
BEGIN
    IF turnwise.check_in(
        p_node, at, turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us) IS NULL
    THEN
        RETURN true;
    END IF;
    UPDATE turnwise.nodes n SET token_floor = greatest(n.token_floor, p_token + 1)
    WHERE n.id = p_node;
    PERFORM turnwise.put_back(p_node, ARRAY(
        SELECT j.id FROM turnwise.jobs j
        WHERE j.state = 'running' AND j.node = p_node AND j.token = p_token
    ), p_reason, at);
    RETURN false;
END $$;

-- The server has another history than the one that the node knew. Bar every token up to `p_last`, and put the
-- jobs that run under the node and such a token back into the queue, for `p_reason`, but for those that it
-- holds: (`p_jobs`, `p_tokens`). Whether the node is lost.
CREATE FUNCTION turnwise.jobs_reconcile(
    p_node uuid, p_jobs text[], p_tokens bigint[], p_last bigint, p_reason text,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := turnwise.clock();
BEGIN
    IF turnwise.check_in(
        p_node, at, turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us) IS NULL
    THEN
        RETURN true;
    END IF;
    UPDATE turnwise.nodes n SET token_floor = greatest(n.token_floor, p_last + 1)
    WHERE n.id = p_node;
    PERFORM turnwise.put_back(p_node, ARRAY(
        SELECT j.id FROM turnwise.jobs j
        WHERE j.state = 'running' AND j.node = p_node AND j.token <= p_last AND NOT EXISTS (
            SELECT FROM unnest(p_jobs, p_tokens) h (job, token)
            WHERE h.job::uuid = j.id AND h.token = j.token)
    ), p_reason, at);
    RETURN false;
END $$;

-- Record the ends of attempts, each by itself. `outcomes`, in the order given: 0 recorded, 1 recorded
-- before, 2 not this claim's any more. Fates: 'succeeded', 'retry' (after `p_waits_us`), 'dead', and 'back', which
-- spends the attempt after ten hand-backs.
CREATE FUNCTION turnwise.jobs_end(
    p_node uuid, p_jobs text[], p_tokens bigint[], p_fates text[], p_waits_us bigint[],
    p_statuses integer[], p_errors text[], p_answers bytea[],
    OUT outcomes integer[], OUT lost boolean
) LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := turnwise.clock();
    recorded bigint[];
BEGIN
    UPDATE turnwise.nodes n SET
        last_check_in = at, lease_until = at + turnwise.lease(turnwise.period_ms())
    WHERE n.id = p_node AND n.state <> 'lost';
    lost := NOT FOUND;
    IF lost THEN
        outcomes := array_fill(2, ARRAY[cardinality(p_jobs)]);
        PERFORM set_config('synchronous_commit', 'off', true);
        RETURN;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (g.job) g.job::uuid AS job, g.token,
            CASE
                WHEN g.fate <> 'back' OR j.hand_backs < 10 THEN g.fate
                WHEN j.attempt < j.max_attempts THEN 'retry'
                ELSE 'dead' END AS fate,
            g.wait_us, g.status, g.error,
            g.answer, g.place
        FROM unnest(p_jobs, p_tokens, p_fates, p_waits_us, p_statuses, p_errors, p_answers)
            WITH ORDINALITY g (job, token, fate, wait_us, status, error, answer, place)
        JOIN turnwise.jobs j
            ON j.id = g.job::uuid AND j.state = 'running' AND j.node = p_node AND j.token = g.token
        ORDER BY g.job, g.place
    ), ended AS (
        UPDATE turnwise.jobs j SET
            state = CASE
                WHEN g.fate IN ('succeeded', 'dead') THEN g.fate
                WHEN j.cancel_requested THEN 'cancelled'
                ELSE 'queued' END,
            finished_at = CASE
                WHEN g.fate IN ('succeeded', 'dead') OR j.cancel_requested THEN at END,
            scheduled_at = CASE
                WHEN g.fate = 'retry' AND NOT j.cancel_requested
                THEN at + g.wait_us * interval '1 microsecond'
                ELSE j.scheduled_at END,
            queued_at = CASE WHEN g.fate IN ('retry', 'back') THEN at ELSE j.queued_at END,
            attempt = CASE WHEN g.fate = 'back' THEN greatest(j.attempt - 1, 0) ELSE j.attempt END,
            hand_backs = CASE WHEN g.fate = 'back' THEN j.hand_backs + 1 ELSE j.hand_backs END,
            last_status = g.status,
            last_error = g.error
        FROM given g
        WHERE j.id = g.job AND j.state = 'running' AND j.node = p_node AND j.token = g.token
        RETURNING j.id, j.token, j.started_at, g.status, g.error, g.answer, g.place,
            CASE WHEN g.fate = 'back' THEN j.attempt + 1 ELSE j.attempt END AS attempt
    ), written AS (
        INSERT INTO turnwise.attempts AS a
            (job, node, token, attempt, started_at, finished_at, status, error, answer)
        SELECT e.id, p_node, e.token, e.attempt, e.started_at, at, e.status, e.error, e.answer
        FROM ended e
        ON CONFLICT DO NOTHING
    )
    SELECT array_agg(e.place) INTO recorded FROM ended e;
    SELECT coalesce(array_agg(
        CASE
            WHEN g.place = ANY (recorded) THEN 0
            WHEN EXISTS (
                SELECT FROM turnwise.attempts a
                WHERE a.job = g.job::uuid AND a.node = p_node AND a.token = g.token
                    AND a.error IS DISTINCT FROM 'node lost')
            THEN 1
            ELSE 2 END
        ORDER BY g.place), '{}')
    INTO outcomes
    FROM unnest(p_jobs, p_tokens) WITH ORDINALITY g (job, token, place);
END $$;
