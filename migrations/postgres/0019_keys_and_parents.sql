-- least-binary: 0.1.0
--
-- Concurrency keys: of the jobs of a queue that have the same one, no more run at once than the queue says. And queues that are held
-- back for a while since a target asks for it. Claims of every binary that uses these functions keep to both. And which job has
-- enqueued a job.

ALTER TABLE turnwise.queues
    -- So many jobs with the same concurrency key run at once; null: any number.
    ADD COLUMN concurrency_per_key bigint
        CONSTRAINT concurrency_per_key_is_1_to_a_million CHECK (concurrency_per_key BETWEEN 1 AND 1000000),
    -- For so long it is held back at most when a target answers 429 or 503 with Retry-After; null: it is not.
    ADD COLUMN slow_down_ms bigint
        CONSTRAINT slow_down_is_1_s_to_24_h CHECK (slow_down_ms BETWEEN 1000 AND 86400000),
    -- Until when it is held back.
    ADD COLUMN slowed_until timestamptz,
    -- Behind which key the first jobs of keys are looked for next, where very many wait; null: from the first.
    ADD COLUMN keys_from text COLLATE "C";

ALTER TABLE turnwise.jobs
    ADD COLUMN concurrency_key text COLLATE "C",
    -- The job that has enqueued it.
    ADD COLUMN parent uuid;
ALTER TABLE turnwise.jobs ADD CONSTRAINT concurrency_key_has_1_to_256_bytes
    CHECK (octet_length(concurrency_key) BETWEEN 1 AND 256) NOT VALID;
-- Finds the first job of each key of a lane, however many wait for the same one.
CREATE INDEX jobs_keyed ON turnwise.jobs (queue, priority, concurrency_key, scheduled_at)
    WHERE state = 'queued' AND concurrency_key IS NOT NULL;

ALTER TABLE turnwise.schedules ADD COLUMN concurrency_key text COLLATE "C"
    CONSTRAINT concurrency_key_has_1_to_256_bytes CHECK (octet_length(concurrency_key) BETWEEN 1 AND 256);

-- Held back ---------------------------------------------------------------------------------------------

-- Whether a queue is held back at an instant; by no more than its policy allows, so that a clock which was set back ends it.
CREATE FUNCTION turnwise.is_held_back(q turnwise.queues, p_at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(q.slowed_until > p_at AND q.slowed_until <= p_at + q.slow_down_ms * interval '1 ms', false)
$$;

-- Claim no job of this queue for so long, as far as its policy allows it.
CREATE FUNCTION turnwise.queue_slow_down(p_queue text, p_wait_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at CONSTANT timestamptz := turnwise.clock();
BEGIN
    UPDATE turnwise.queues q SET slowed_until = greatest(
        at + least(p_wait_ms, q.slow_down_ms) * interval '1 ms',
        CASE WHEN turnwise.is_held_back(q, at) THEN q.slowed_until END)
    WHERE q.name = p_queue AND q.slow_down_ms IS NOT NULL;
END $$;

-- The queues that every claim passes over, as 0009 has it: those that are held back too.
CREATE OR REPLACE FUNCTION turnwise.paused_queues() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT array_agg(q.name) FROM turnwise.queues q
        WHERE q.paused_at IS NOT NULL OR q.slowed_until IS NOT NULL AND turnwise.is_held_back(q, turnwise.clock())), '{}');
END $$;

-- What queues say of their jobs, as 0011 has it.
CREATE OR REPLACE FUNCTION turnwise.queue_policies() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_object_agg(q.name, jsonb_build_object('retry_wait_ms', q.retry_wait_ms,
            'retry_wait_max_ms', q.retry_wait_max_ms, 'permanent', q.permanent_statuses, 'slow_down_ms', q.slow_down_ms))
        FROM turnwise.queues q
        WHERE q.retry_wait_ms IS NOT NULL OR q.retry_wait_max_ms IS NOT NULL OR q.permanent_statuses IS NOT NULL
            OR q.slow_down_ms IS NOT NULL);
END $$;

-- Claims within the limits of keys ------------------------------------------------------------------------

-- So many jobs of each key of the queue may run at once; null: any number.
ALTER TYPE turnwise.room ADD ATTRIBUTE per_key bigint;

-- The rooms of those queues of these lanes that have limits, as 0018 has it.
CREATE OR REPLACE FUNCTION turnwise.rooms(p_lanes text[], p_due timestamptz, p_at timestamptz) RETURNS turnwise.room[]
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    names text[];
    held text[];
    now_us CONSTANT bigint := turnwise.micros(p_at);
BEGIN
    SELECT array_agg(q.name ORDER BY q.name) INTO names FROM turnwise.queues q
    WHERE (q.concurrency IS NOT NULL OR q.concurrency_per_key IS NOT NULL OR q.rate_jobs IS NOT NULL) AND q.name = ANY (p_lanes);
    IF names IS NULL THEN
        RETURN NULL;
    END IF;
    WITH locked AS (
        SELECT q.name FROM turnwise.queues q WHERE q.name = ANY (names) ORDER BY q.name
        FOR NO KEY UPDATE SKIP LOCKED)
    SELECT coalesce(array_agg(l.name), '{}') INTO held FROM locked l;
    -- A statement of its own: it sees what was committed before the locks were given.
    RETURN (
        WITH running AS MATERIALIZED (
            -- All that run are walked once, however many queues have limits.
            SELECT r.queue, count(*) AS jobs FROM (
                SELECT j.queue FROM turnwise.jobs j WHERE j.state = 'running' AND j.queue = ANY (held)
                UNION ALL
                SELECT j.queue FROM turnwise.jobs j
                WHERE j.awaits_since IS NOT NULL AND (j.state = 'queued') IS TRUE AND j.queue = ANY (held)
                    AND j.scheduled_at > p_due AND j.awaits_since >= j.started_at
            ) r
            GROUP BY r.queue
        ), bucket AS (
            SELECT q.name, q.concurrency, q.concurrency_per_key, b.step_us, b.burst, b.step_us * b.burst AS most_us,
                turnwise.micros(q.rate_full_at) - now_us AS lacks_us
            FROM turnwise.queues q
            CROSS JOIN LATERAL (
                SELECT (q.rate_per_ms * 1000 + q.rate_jobs - 1) / q.rate_jobs AS step_us,
                    coalesce(q.rate_burst, q.rate_jobs) AS burst
            ) b
            WHERE q.name = ANY (held)
        ), room AS (
            SELECT b.name, b.concurrency_per_key AS per_key,
                CASE WHEN b.concurrency IS NOT NULL THEN
                    greatest(b.concurrency - coalesce((SELECT r.jobs FROM running r WHERE r.queue = b.name), 0), 0) END AS places,
                (b.most_us - greatest(least(b.lacks_us, b.most_us), 0)) / b.step_us AS tokens,
                now_us + greatest(CASE WHEN b.was_ahead THEN b.most_us ELSE b.lacks_us END, 0) AS full_at_us,
                b.step_us, b.burst, b.was_ahead
            FROM (
                SELECT e.name, e.concurrency, e.concurrency_per_key, e.step_us, e.burst, e.most_us, coalesce(e.lacks_us, 0) AS lacks_us,
                    -- (Less than a second: a claim whose clock was read a little later came first.)
                    coalesce(e.lacks_us > e.most_us + 1000000, false) AS was_ahead
                FROM bucket e
            ) b
        )
        SELECT array_agg((n.name, CASE WHEN r.name IS NULL THEN 0 ELSE least(r.places, r.tokens) END,
            CASE WHEN r.name IS NULL THEN 0 ELSE r.places END, r.tokens,
            CASE WHEN r.step_us IS NOT NULL THEN r.full_at_us END, r.step_us, r.burst, r.was_ahead, r.per_key)::turnwise.room)
        FROM unnest(names) n (name) LEFT JOIN room r ON r.name = n.name);
END $$;

-- What a claim took is entered, and what was kept back because of a limit is told, as 0018 has it: 1 when there is room as soon as a job
-- ends, 2 when there is not, but something was left behind.
CREATE OR REPLACE FUNCTION turnwise.took(
    p_rooms turnwise.room[], p_node uuid, p_token bigint, p_lanes text[], p_priorities smallint[],
    p_due timestamptz, p_at timestamptz, OUT until_one_ends bigint, OUT wait_us bigint
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    room turnwise.room;
    taken bigint;
    wait bigint;
BEGIN
    FOREACH room IN ARRAY p_rooms LOOP
        SELECT count(*) INTO taken FROM turnwise.jobs j
        WHERE j.state = 'running' AND j.node = p_node AND j.token = p_token AND j.queue = room.queue;
        IF room.step_us IS NOT NULL AND (taken > 0 OR room.was_ahead) THEN
            UPDATE turnwise.queues q SET rate_full_at = turnwise.instant(room.full_at_us + taken * room.step_us)
            WHERE q.name = room.queue;
        END IF;
        IF (taken >= room.jobs OR room.per_key IS NOT NULL AND room.queue <> ALL (turnwise.paused_queues())) AND EXISTS (
            SELECT FROM unnest(p_lanes, p_priorities) l (queue, priority)
            CROSS JOIN LATERAL (
                SELECT FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                    AND j.scheduled_at <= p_due
                ORDER BY j.scheduled_at LIMIT 1
            ) due
            WHERE l.queue = room.queue
        ) THEN
            -- (What waits for its key can be claimed as soon as one of that key ends.)
            IF taken >= room.places OR room.per_key IS NOT NULL AND taken < coalesce(room.jobs, taken + 1) THEN
                until_one_ends := 1;
            END IF;
            -- By a rate: no end makes room, but something was left behind.
            until_one_ends := coalesce(until_one_ends, 2);
            IF taken > 0 AND taken >= room.tokens THEN
                wait := room.full_at_us + taken * room.step_us - turnwise.micros(p_at)
                    - (room.burst - 1) * room.step_us;
                wait_us := least(wait_us, greatest(wait, 0));
            END IF;
        END IF;
    END LOOP;
END $$;

-- Which jobs of these queues, which bound their keys, may be claimed: of each queue no more than there is room, and of each key no more
-- than may still run. Each lane is walked from its beginning, up to 1,000 jobs. Where that finds fewer of a queue than could be taken and
-- did not come to the end of a lane (`deep`), the first job of each key can be taken into account as well, of up to 1,000 keys of a lane
-- (`p_by_key`): however many jobs wait for one key, they hold up no other. They begin behind the key that the last claim came to
-- (`queues.keys_from`; the row is held), so that each has its turn.
CREATE FUNCTION turnwise.within_keys(
    p_rooms turnwise.room[], p_lanes text[], p_priorities smallint[], p_limit integer, p_due timestamptz,
    p_by_key text[], OUT ids uuid[], OUT places timestamptz[], OUT deep text[]
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = on
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    bounded CONSTANT text[] := ARRAY(SELECT r.queue FROM unnest(p_rooms) r WHERE r.per_key IS NOT NULL);
    first_ids uuid[] := '{}';
    reached record;
BEGIN
    IF p_by_key IS NOT NULL THEN
        FOR reached IN
            WITH RECURSIVE known (queue, priority, key, number) AS (
                SELECT l.queue, l.priority, coalesce(q.keys_from, ''), 0
                FROM unnest(p_lanes, p_priorities) l (queue, priority) JOIN turnwise.queues q ON q.name = l.queue
                WHERE l.queue = ANY (p_by_key)
                UNION ALL
                SELECT k.queue, k.priority, (SELECT j.concurrency_key FROM turnwise.jobs j
                    WHERE j.state = 'queued' AND j.queue = k.queue AND j.priority = k.priority
                        AND j.concurrency_key > k.key
                    ORDER BY j.concurrency_key LIMIT 1), k.number + 1
                FROM known k WHERE k.key IS NOT NULL AND k.number < 1000
            )
            SELECT k.queue, k.priority, array_agg(f.id) FILTER (WHERE f.id IS NOT NULL) AS ids,
                CASE WHEN bool_and(k.key IS NOT NULL) THEN max(k.key) END AS last
            FROM known k LEFT JOIN LATERAL (
                -- (Written so that the index of keys is entered at the key, whatever the statistics say.)
                SELECT j.id FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue = k.queue AND j.priority = k.priority
                    AND j.concurrency_key >= k.key AND (j.concurrency_key, j.scheduled_at) <= (k.key, p_due)
                ORDER BY j.concurrency_key, j.scheduled_at LIMIT 1
            ) f ON k.number > 0
            GROUP BY k.queue, k.priority
            ORDER BY k.queue, last DESC NULLS FIRST
        LOOP
            first_ids := first_ids || coalesce(reached.ids, '{}');
            -- Of several lanes the one that came least far, which is the last; null: all came to their ends.
            UPDATE turnwise.queues q SET keys_from = reached.last
            WHERE q.name = reached.queue AND q.keys_from IS DISTINCT FROM reached.last;
        END LOOP;
    END IF;
    WITH lane AS MATERIALIZED (
        SELECT l.queue, l.priority, r.jobs, r.per_key
        FROM unnest(p_lanes, p_priorities) l (queue, priority) JOIN unnest(p_rooms) r ON r.queue = l.queue
        WHERE r.per_key IS NOT NULL AND r.jobs IS DISTINCT FROM 0
    ), running AS MATERIALIZED (
        SELECT r.queue, r.concurrency_key, count(*) AS jobs FROM (
            SELECT j.queue, j.concurrency_key FROM turnwise.jobs j
            WHERE j.state = 'running' AND j.concurrency_key IS NOT NULL AND j.queue = ANY (bounded)
            UNION ALL
            SELECT j.queue, j.concurrency_key FROM turnwise.jobs j
            WHERE j.awaits_since IS NOT NULL AND (j.state = 'queued') IS TRUE AND j.concurrency_key IS NOT NULL
                AND j.queue = ANY (bounded) AND j.scheduled_at > p_due AND j.awaits_since >= j.started_at
        ) r
        GROUP BY r.queue, r.concurrency_key
    ), walked AS MATERIALIZED (
        SELECT l.queue, l.priority, l.jobs, l.per_key, due.id, due.place, due.concurrency_key
        FROM lane l CROSS JOIN LATERAL (
            SELECT j.id, j.scheduled_at - l.priority * interval '10 s' AS place, j.concurrency_key FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority AND j.scheduled_at <= p_due
            ORDER BY j.scheduled_at LIMIT 1000
        ) due
    ), seen AS (
        SELECT w.* FROM walked w
        UNION ALL
        SELECT l.queue, l.priority, l.jobs, l.per_key, j.id, j.scheduled_at - l.priority * interval '10 s', j.concurrency_key
        FROM turnwise.jobs j JOIN lane l ON l.queue = j.queue AND l.priority = j.priority
        -- (Written so that it is looked up by the ids, whatever the statistics say.)
        WHERE j.id = ANY (first_ids) AND (j.state = 'queued') IS TRUE AND j.id NOT IN (SELECT w.id FROM walked w)
    ), allowed AS MATERIALIZED (
        SELECT a.queue, a.id, a.place, a.jobs,
            row_number() OVER (PARTITION BY a.queue ORDER BY a.place, a.id) AS number
        FROM (
            SELECT s.*, row_number() OVER (PARTITION BY s.queue, s.concurrency_key ORDER BY s.place, s.id) AS of_key
            FROM seen s
        ) a
        LEFT JOIN running r ON r.queue = a.queue AND r.concurrency_key = a.concurrency_key
        WHERE a.concurrency_key IS NULL OR a.of_key <= a.per_key - coalesce(r.jobs, 0)
    ), taken AS (
        SELECT a.id, a.place FROM allowed a WHERE a.jobs IS NULL OR a.number <= a.jobs
        ORDER BY a.place, a.id LIMIT p_limit
    )
    SELECT (SELECT array_agg(t.id ORDER BY t.place, t.id) FROM taken t),
        (SELECT array_agg(t.place ORDER BY t.place, t.id) FROM taken t),
        (SELECT array_agg(DISTINCT w.queue) FROM (
                SELECT w.queue, w.jobs FROM walked w GROUP BY w.queue, w.priority, w.jobs HAVING count(*) >= 1000) w
            WHERE (SELECT count(*) FROM allowed a WHERE a.queue = w.queue) < least(p_limit, w.jobs))
    INTO ids, places, deep;
END $$;

-- The rows, which are held, that a claim takes where any of these queues bounds its keys: of the first `p_limit` jobs of all lanes those
-- that nobody else holds.
CREATE FUNCTION turnwise.take_within_keys(
    p_rooms turnwise.room[], p_limit integer,
    p_lanes text[], p_priorities smallint[], p_starts timestamptz[], p_due timestamptz, OUT places tid[], OUT bytes bigint
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    found record;
BEGIN
    SELECT k.* INTO found FROM turnwise.within_keys(p_rooms, p_lanes, p_priorities, p_limit, p_due, NULL) k;
    IF found.deep IS NOT NULL THEN
        SELECT k.* INTO found FROM turnwise.within_keys(p_rooms, p_lanes, p_priorities, p_limit, p_due, found.deep) k;
    END IF;
    WITH first AS MATERIALIZED (
        SELECT f.* FROM (
            SELECT ranked.queue, ranked.priority, ranked.start, NULL::uuid AS id, ranked.place FROM (
                SELECT l.queue, l.priority, l.start, due.scheduled_at - l.priority * interval '10 s' AS place, r.jobs,
                    row_number() OVER (PARTITION BY l.queue
                        ORDER BY due.scheduled_at - l.priority * interval '10 s', l.priority) AS number
                FROM unnest(p_lanes, p_priorities, p_starts) l (queue, priority, start)
                LEFT JOIN unnest(p_rooms) r ON r.queue = l.queue
                CROSS JOIN LATERAL (
                    SELECT j.scheduled_at FROM turnwise.jobs j
                    WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                        AND j.scheduled_at >= l.start AND j.scheduled_at <= p_due
                    ORDER BY j.scheduled_at LIMIT least(p_limit, r.jobs)
                ) due
                WHERE r.per_key IS NULL
            ) ranked
            WHERE ranked.jobs IS NULL OR ranked.number <= ranked.jobs
            UNION ALL
            SELECT NULL, NULL, NULL, k.id, k.place FROM unnest(found.ids, found.places) k (id, place)
        ) f
        ORDER BY f.place LIMIT p_limit
    ), share AS MATERIALIZED (
        SELECT f.queue, f.priority, f.start, count(*) AS jobs FROM first f WHERE f.id IS NULL
        GROUP BY f.queue, f.priority, f.start
    ), of_lanes AS MATERIALIZED (
        SELECT due.place, due.bytes FROM share s CROSS JOIN LATERAL (
            SELECT j.ctid AS place, octet_length(j.body) AS bytes FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = s.queue AND j.priority = s.priority
                AND j.scheduled_at >= s.start AND j.scheduled_at <= p_due
            ORDER BY j.scheduled_at LIMIT s.jobs FOR UPDATE SKIP LOCKED
        ) due
    ), of_keys AS MATERIALIZED (
        SELECT j.ctid AS place, octet_length(j.body) AS bytes FROM turnwise.jobs j
        WHERE j.id = ANY (ARRAY(SELECT f.id FROM first f WHERE f.id IS NOT NULL))
            AND (j.state = 'queued') IS TRUE AND j.scheduled_at <= p_due
        FOR UPDATE SKIP LOCKED
    )
    SELECT array_agg(t.place), sum(t.bytes) INTO places, bytes
    FROM (SELECT l.* FROM of_lanes l UNION ALL SELECT k.* FROM of_keys k) t;
END $$;

-- Claim as 0017 has it; within the limits of keys too.
CREATE OR REPLACE FUNCTION turnwise.take_within(
    p_rooms turnwise.room[], p_node uuid, p_token bigint, p_limit integer, p_bytes bigint,
    p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_due timestamptz, p_at timestamptz
) RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    paused text[];
    starts timestamptz[];
    places tid[];
    bytes bigint;
BEGIN
    IF p_lanes IS NULL OR p_limit <= 0 THEN
        RETURN;
    END IF;
    paused := turnwise.paused_queues();
    IF p_lanes && paused THEN
        SELECT array_agg(l.queue ORDER BY l.place), array_agg(l.priority ORDER BY l.place),
            array_agg(l.start ORDER BY l.place)
        INTO p_lanes, p_priorities, p_from
        FROM unnest(p_lanes, p_priorities, p_from) WITH ORDINALITY l (queue, priority, start, place)
        WHERE l.queue <> ALL (paused);
        IF p_lanes IS NULL THEN
            RETURN;
        END IF;
    END IF;
    SELECT array_agg(coalesce(turnwise.instant(p_from[l.place]), '-infinity') ORDER BY l.place)
    INTO starts FROM generate_subscripts(p_lanes, 1) l (place);
    -- Nobody else claims from the queues that have limits: their rows are held.
    IF EXISTS (SELECT FROM unnest(p_rooms) r WHERE r.per_key IS NOT NULL) THEN
        SELECT k.places, k.bytes INTO places, bytes FROM turnwise.take_within_keys(
            p_rooms, p_limit, p_lanes, p_priorities, starts, p_due) k;
    ELSE
        WITH share (queue, priority, start, jobs) AS MATERIALIZED (
            SELECT first.queue, first.priority, first.start, count(*)
            FROM (
                SELECT ranked.* FROM (
                    SELECT l.queue, l.priority, l.start, due.scheduled_at - l.priority * interval '10 s' AS place, r.jobs,
                        row_number() OVER (PARTITION BY l.queue
                            ORDER BY due.scheduled_at - l.priority * interval '10 s', l.priority) AS number
                    FROM unnest(p_lanes, p_priorities, starts) l (queue, priority, start)
                    LEFT JOIN unnest(p_rooms) r ON r.queue = l.queue
                    CROSS JOIN LATERAL (
                        SELECT j.scheduled_at FROM turnwise.jobs j
                        WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                            AND j.scheduled_at >= l.start AND j.scheduled_at <= p_due
                        ORDER BY j.scheduled_at LIMIT least(p_limit, r.jobs)
                    ) due
                ) ranked
                WHERE ranked.jobs IS NULL OR ranked.number <= ranked.jobs
                ORDER BY ranked.place LIMIT p_limit
            ) first
            GROUP BY first.queue, first.priority, first.start
        )
        SELECT array_agg(due.ctid), sum(due.bytes) INTO places, bytes
        FROM share s CROSS JOIN LATERAL (
            SELECT j.ctid, octet_length(j.body) AS bytes FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = s.queue AND j.priority = s.priority
                AND j.scheduled_at >= s.start AND j.scheduled_at <= p_due
            ORDER BY j.scheduled_at LIMIT s.jobs FOR UPDATE SKIP LOCKED
        ) due;
    END IF;
    IF places IS NULL THEN
        RETURN;
    END IF;
    -- They are locked: each is where it was seen.
    IF bytes > p_bytes THEN
        SELECT array_agg(w.ctid) INTO places FROM (
            SELECT j.ctid, row_number() OVER waiting AS place,
                sum(CASE WHEN octet_length(j.body) <= 262144 THEN octet_length(j.body) END)
                    OVER waiting AS bytes
            FROM turnwise.jobs j WHERE j.ctid = ANY (places)
            WINDOW waiting AS (ORDER BY j.scheduled_at - j.priority * interval '10 s', j.id)
        ) w
        WHERE w.place = 1 OR coalesce(w.bytes, 0) <= p_bytes;
    END IF;
    RETURN QUERY SELECT * FROM turnwise.taken(p_node, p_token, p_at, places);
END $$;

-- What few jobs say, as 0017 has it, with the job that has enqueued them.
CREATE FUNCTION turnwise.particulars(
    p_policies jsonb, p_queue text, p_retry_wait_ms bigint, p_retry_wait_max_ms bigint, p_asynchronous boolean,
    p_heartbeat_ms bigint, p_schedule text, p_batch uuid, p_attempt integer, p_last_status integer, p_parent uuid
) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_policies IS NOT NULL OR p_retry_wait_ms IS NOT NULL OR p_retry_wait_max_ms IS NOT NULL
            OR p_asynchronous IS NOT NULL OR p_schedule IS NOT NULL OR p_batch IS NOT NULL
            OR p_attempt > 1 AND p_last_status IS NOT NULL OR p_parent IS NOT NULL
        THEN ARRAY[jsonb_strip_nulls(coalesce(p_policies -> p_queue, '{}') || jsonb_strip_nulls(jsonb_build_object(
            'retry_wait_ms', p_retry_wait_ms, 'retry_wait_max_ms', p_retry_wait_max_ms,
            'asynchronous', p_asynchronous::integer, 'heartbeat_ms', p_heartbeat_ms, 'schedule', p_schedule,
            'batch', p_batch, 'parent', p_parent,
            'previous_status', CASE WHEN p_attempt > 1 THEN p_last_status END)))::text]
        END
$$;

-- These rows, which are held, run under this claim from now on.
CREATE OR REPLACE FUNCTION turnwise.taken(p_node uuid, p_token bigint, p_at timestamptz, p_places tid[])
RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    policies CONSTANT jsonb := turnwise.queue_policies();
BEGIN
    RETURN QUERY
    WITH taken AS (
        UPDATE turnwise.jobs j SET
            state = 'running', node = p_node, token = p_token, started_at = p_at,
            attempt = j.attempt + 1, awaits_since = NULL, progress = NULL, progress_note = NULL
        WHERE j.ctid = ANY (p_places)
        RETURNING j.id, j.queue, j.method, j.url, j.headers, j.body, j.attempt, j.max_attempts,
            j.hand_backs, j.deadline_ms, j.scheduled_at, j.priority, j.last_status,
            j.retry_wait_ms, j.retry_wait_max_ms, j.asynchronous, j.heartbeat_ms, j.schedule, j.batch, j.parent
    )
    SELECT t.id::text, p_token, t.queue, t.method, t.url, t.headers::text,
        CASE WHEN octet_length(t.body) <= 262144 THEN t.body END,
        coalesce(octet_length(t.body), 0)::bigint, t.attempt::bigint, t.max_attempts::bigint,
        t.hand_backs::bigint, t.deadline_ms, turnwise.micros(t.scheduled_at), t.priority::bigint,
        NULL::bigint, NULL::bigint,
        turnwise.particulars(policies, t.queue, t.retry_wait_ms, t.retry_wait_max_ms, t.asynchronous, t.heartbeat_ms,
            t.schedule, t.batch, t.attempt, t.last_status, t.parent),
        NULL::smallint[], NULL::boolean
    FROM taken t
    ORDER BY t.scheduled_at - t.priority * interval '10 s', t.id;
END $$;

-- As 0017 has it.
CREATE OR REPLACE FUNCTION turnwise.jobs_recovered(
    p_node uuid, p_token bigint,
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql AS $$
DECLARE
    policies jsonb := turnwise.queue_policies();
    lost CONSTANT boolean := turnwise.check_in(
        p_node, turnwise.clock(), turnwise.period_ms(),
        p_running, p_offset_us, p_offset_error_us, p_transit_us) IS NULL;
BEGIN
    IF NOT lost THEN
        UPDATE turnwise.nodes n SET token_floor = greatest(n.token_floor, p_token + 1)
        WHERE n.id = p_node;
        RETURN QUERY
        SELECT j.id::text, j.token, j.queue, j.method, j.url, j.headers::text,
            CASE WHEN octet_length(j.body) <= 262144 THEN j.body END,
            coalesce(octet_length(j.body), 0)::bigint, j.attempt::bigint, j.max_attempts::bigint,
            j.hand_backs::bigint, j.deadline_ms, turnwise.micros(j.scheduled_at), j.priority::bigint,
            NULL::bigint, NULL::bigint,
            turnwise.particulars(policies, j.queue, j.retry_wait_ms, j.retry_wait_max_ms, j.asynchronous,
                j.heartbeat_ms, j.schedule, j.batch, j.attempt, j.last_status, j.parent),
            NULL::smallint[], NULL::boolean
        FROM turnwise.jobs j
        WHERE j.state = 'running' AND j.node = p_node AND j.token = p_token
        ORDER BY j.scheduled_at - j.priority * interval '10 s', j.id;
    END IF;
    RETURN QUERY SELECT
        NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::text[], NULL::smallint[], lost;
END $$;

-- Enqueuing ---------------------------------------------------------------------------------------------

DROP FUNCTION turnwise.enqueue_unique(
    uuid, text, text, text, jsonb, bytea, integer, timestamptz, timestamptz, integer, bigint, text, timestamptz,
    bigint, bigint, boolean, bigint);

-- Enqueue a job that has a unique key, as 0011 has it.
CREATE FUNCTION turnwise.enqueue_unique(
    p_id uuid, p_queue text, p_method text, p_url text, p_headers jsonb, p_body bytea, p_priority integer,
    p_scheduled_at timestamptz, p_moment timestamptz, p_max_attempts integer, p_deadline_ms bigint,
    p_unique_key text, p_unique_until timestamptz,
    p_retry_wait_ms bigint DEFAULT NULL, p_retry_wait_max_ms bigint DEFAULT NULL, p_asynchronous boolean DEFAULT NULL,
    p_heartbeat_ms bigint DEFAULT NULL, p_concurrency_key text DEFAULT NULL,
    p_parent uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    holder uuid;
BEGIN
    FOR tries IN 1 .. 100 LOOP
        -- One that ends or is given another try just now is waited for.
        UPDATE turnwise.jobs j SET unique_key = NULL, unique_until = NULL
        WHERE j.unique_key = p_unique_key AND j.id <> p_id AND j.state IN ('succeeded', 'dead', 'cancelled')
            AND (j.unique_until IS NULL OR j.unique_until <= p_moment);
        -- So is one that is being enqueued with the same key: its id, if it commits, or else the key.
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms, unique_key, unique_until, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms,
            concurrency_key, parent)
        VALUES (
            p_id, p_queue, p_method, p_url, p_headers, p_body, p_priority, p_scheduled_at, p_moment, p_moment,
            p_max_attempts, p_deadline_ms, p_unique_key, p_unique_until,
            p_retry_wait_ms, p_retry_wait_max_ms, p_asynchronous, p_heartbeat_ms, p_concurrency_key, p_parent)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN p_id;
        END IF;
        SELECT j.id INTO holder FROM turnwise.jobs j
        WHERE j.id = p_id OR j.unique_key = p_unique_key ORDER BY j.id <> p_id LIMIT 1;
        IF FOUND THEN
            RETURN holder;
        END IF;
        -- The key became free in between.
    END LOOP;
    RAISE EXCEPTION 'the unique key "%" changed hands a hundred times', p_unique_key
        USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
END $$;

-- Many jobs, as the node and its commands enqueue them, as 0011 has it; `p_particulars`: what few of them say.
CREATE OR REPLACE FUNCTION turnwise.jobs_enqueue(
    p_ids uuid[], p_queues text[], p_methods text[], p_urls text[], p_headers jsonb[], p_bodies bytea[],
    p_priorities integer[], p_at bigint[], p_waits_us bigint[], p_max_attempts integer[],
    p_deadlines_ms bigint[], p_keys text[], p_windows_us bigint[], p_particulars jsonb[]
) RETURNS text[] LANGUAGE plpgsql
-- For whoever enqueues the same key just now.
SET lock_timeout = '5s' AS $$
DECLARE
    moment CONSTANT timestamptz := turnwise.clock();
    ids uuid[] := p_ids;
    place bigint;
BEGIN
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, concurrency_key, parent)
    SELECT n.id, n.queue, n.method, n.url, n.headers, n.body, n.priority,
        coalesce(turnwise.instant(n.at), moment + n.wait_us * interval '1 microsecond'), moment, moment,
        n.max_attempts, n.deadline_ms, (n.more ->> 'retry_wait_ms')::bigint, (n.more ->> 'retry_wait_max_ms')::bigint,
        (n.more ->> 'asynchronous')::integer <> 0, (n.more ->> 'heartbeat_ms')::bigint, n.more ->> 'concurrency_key',
        (n.more ->> 'parent')::uuid
    FROM unnest(p_ids, p_queues, p_methods, p_urls, p_headers, p_bodies, p_priorities, p_at, p_waits_us,
            p_max_attempts, p_deadlines_ms, p_keys, p_particulars)
        n (id, queue, method, url, headers, body, priority, at, wait_us, max_attempts, deadline_ms, key, more)
    WHERE n.key IS NULL
    ON CONFLICT (id) DO NOTHING;
    FOR place IN
        SELECT k.place FROM unnest(p_keys) WITH ORDINALITY k (key, place)
        WHERE k.key IS NOT NULL ORDER BY k.key, k.place
    LOOP
        ids[place] := turnwise.enqueue_unique(
            p_ids[place], p_queues[place], p_methods[place], p_urls[place], p_headers[place], p_bodies[place],
            p_priorities[place],
            coalesce(turnwise.instant(p_at[place]), moment + p_waits_us[place] * interval '1 microsecond'),
            moment, p_max_attempts[place], p_deadlines_ms[place], p_keys[place],
            moment + p_windows_us[place] * interval '1 microsecond',
            (p_particulars[place] ->> 'retry_wait_ms')::bigint, (p_particulars[place] ->> 'retry_wait_max_ms')::bigint,
            (p_particulars[place] ->> 'asynchronous')::integer <> 0, (p_particulars[place] ->> 'heartbeat_ms')::bigint,
            p_particulars[place] ->> 'concurrency_key', (p_particulars[place] ->> 'parent')::uuid);
    END LOOP;
    RETURN ids::text[];
END $$;

-- For apps: two more arguments. --------------------------------------------------------------------------

DROP FUNCTION turnwise.enqueue(
    text, jsonb, bytea, text, timestamptz, integer, integer, interval, text, jsonb, uuid, text, interval, interval, interval,
    boolean, interval);

-- The job's id. A job with that id that is there already stays as it is; when `unique_key` is held by a job, it is the id of
-- that one. `json` is the body as JSON, with its spaces and the order of its keys as PostgreSQL writes them; `body` is a
-- body of any bytes.
CREATE FUNCTION turnwise.enqueue(
    url text,
    json jsonb DEFAULT NULL,
    body bytea DEFAULT NULL,
    queue text DEFAULT NULL,
    scheduled_at timestamptz DEFAULT NULL,
    priority integer DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    deadline interval DEFAULT NULL,
    method text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    id uuid DEFAULT NULL,
    unique_key text DEFAULT NULL,
    unique_for interval DEFAULT NULL,
    retry_wait interval DEFAULT NULL,
    retry_wait_max interval DEFAULT NULL,
    asynchronous boolean DEFAULT NULL,
    heartbeat interval DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    parent uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job CONSTANT uuid := coalesce(enqueue.id, turnwise.uuid7());
    moment CONSTANT timestamptz := turnwise.clock();
    until CONSTANT timestamptz := turnwise.checked_unique_until(enqueue.unique_key, enqueue.unique_for, moment);
    wait_ms CONSTANT bigint := turnwise.checked_millis('retry_wait', enqueue.retry_wait, 1);
    wait_max_ms CONSTANT bigint := turnwise.checked_millis('retry_wait_max', enqueue.retry_wait_max, 1);
    beat_ms CONSTANT bigint := turnwise.checked_millis('heartbeat', enqueue.heartbeat, 1000);
BEGIN
    IF enqueue.heartbeat IS NOT NULL AND NOT coalesce(enqueue.asynchronous, false) THEN
        RAISE EXCEPTION 'heartbeat is given for a job that is not asynchronous'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give asynchronous => true, or leave heartbeat out.';
    END IF;
    IF enqueue.unique_key IS NOT NULL THEN
        RETURN turnwise.enqueue_unique(
            job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'),
            turnwise.checked_url(enqueue.url), turnwise.checked_headers(enqueue.headers),
            turnwise.checked_body(enqueue.json, enqueue.body), coalesce(enqueue.priority, 0),
            coalesce(enqueue.scheduled_at, moment), moment, coalesce(enqueue.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(enqueue.deadline), 600000), enqueue.unique_key, until,
            wait_ms, wait_max_ms, enqueue.asynchronous, beat_ms, enqueue.concurrency_key, enqueue.parent);
    END IF;
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, concurrency_key, parent)
    VALUES (
        job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'),
        turnwise.checked_url(enqueue.url), turnwise.checked_headers(enqueue.headers),
        turnwise.checked_body(enqueue.json, enqueue.body), coalesce(enqueue.priority, 0),
        coalesce(enqueue.scheduled_at, moment), moment, moment, coalesce(enqueue.max_attempts, 20),
        coalesce(turnwise.checked_deadline_ms(enqueue.deadline), 600000),
        wait_ms, wait_max_ms, enqueue.asynchronous, beat_ms, enqueue.concurrency_key, enqueue.parent)
    ON CONFLICT (id) DO NOTHING;
    RETURN job;
END $$;

-- Those that an array describes, as 0011 has it.
CREATE OR REPLACE FUNCTION turnwise.enqueue_array(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment CONSTANT timestamptz := turnwise.clock();
    ids uuid[];
    keyed record;
BEGIN
    WITH given AS MATERIALIZED (
        SELECT coalesce(g.id, turnwise.uuid7()) AS id, g.url, g.json, g.body, g.queue, g.scheduled_at,
            g.priority, g.max_attempts, g.deadline, g.method, g.headers, g.unique_key,
            turnwise.checked_unique_until(g.unique_key, g.unique_for, moment),
            turnwise.checked_millis('retry_wait', g.retry_wait, 1) AS retry_wait_ms,
            turnwise.checked_millis('retry_wait_max', g.retry_wait_max, 1) AS retry_wait_max_ms, g.asynchronous,
            turnwise.checked_millis('heartbeat', g.heartbeat, 1000) AS heartbeat_ms, g.concurrency_key, g.parent, e.place
        FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid,
            unique_key text, unique_for interval, retry_wait interval, retry_wait_max interval, asynchronous boolean,
            heartbeat interval, concurrency_key text, parent uuid)
    ), enqueued AS (
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, concurrency_key, parent)
        SELECT g.id, coalesce(g.queue, 'default'), coalesce(g.method, 'POST'),
            turnwise.checked_url(g.url), turnwise.checked_headers(g.headers),
            turnwise.checked_body(g.json, convert_to(g.body, 'UTF8')), coalesce(g.priority, 0),
            coalesce(g.scheduled_at, moment), moment, moment, coalesce(g.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(g.deadline), 600000),
            g.retry_wait_ms, g.retry_wait_max_ms, g.asynchronous, g.heartbeat_ms, g.concurrency_key, g.parent
        FROM given g WHERE g.unique_key IS NULL ORDER BY g.place
        ON CONFLICT (id) DO NOTHING
    )
    SELECT array_agg(g.id ORDER BY g.place) INTO ids FROM given g;
    FOR keyed IN
        SELECT g.*, e.place FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid,
            unique_key text, unique_for interval, retry_wait interval, retry_wait_max interval, asynchronous boolean,
            heartbeat interval, concurrency_key text, parent uuid)
        WHERE g.unique_key IS NOT NULL ORDER BY g.unique_key, e.place
    LOOP
        ids[keyed.place] := turnwise.enqueue(
            keyed.url, keyed.json, convert_to(keyed.body, 'UTF8'), keyed.queue, keyed.scheduled_at,
            keyed.priority, keyed.max_attempts, keyed.deadline, keyed.method, keyed.headers, keyed.id,
            keyed.unique_key, keyed.unique_for, keyed.retry_wait, keyed.retry_wait_max, keyed.asynchronous,
            keyed.heartbeat, keyed.concurrency_key, keyed.parent);
    END LOOP;
    RETURN QUERY SELECT i.id FROM unnest(ids) WITH ORDINALITY i (id, place) ORDER BY i.place;
END $$;

-- An array of objects, as 0011 has it.
CREATE OR REPLACE FUNCTION turnwise.enqueue_many(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    known CONSTANT text[] := ARRAY['url', 'json', 'body', 'queue', 'scheduled_at', 'priority',
        'max_attempts', 'deadline', 'method', 'headers', 'id',
        'unique_key', 'unique_for', 'retry_wait', 'retry_wait_max', 'asynchronous', 'heartbeat', 'concurrency_key', 'parent'];
    kind CONSTANT text := coalesce(jsonb_typeof(jobs), 'null');
    place bigint;
    many integer;
    wrong text;
    remedy text;
BEGIN
    IF kind <> 'array' THEN
        RAISE EXCEPTION 'turnwise.enqueue_many: the argument is of the type %', kind
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give an array of objects, as in ''[{"url": "/jobs/tidy"}]''.';
    END IF;
    many := jsonb_array_length(jobs);
    -- What would be passed over in silence.
    SELECT e.place, w.wrong INTO place, wrong
    FROM jsonb_array_elements(jobs) WITH ORDINALITY e (job, place)
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN jsonb_typeof(e.job) <> 'object' THEN format('it is of the type %s', jsonb_typeof(e.job))
            WHEN jsonb_typeof(e.job -> 'url') NOT IN ('string', 'null')
                THEN format('url is of the type %s', jsonb_typeof(e.job -> 'url'))
            WHEN jsonb_typeof(e.job -> 'body') NOT IN ('string', 'null')
                THEN format('body is of the type %s', jsonb_typeof(e.job -> 'body'))
            WHEN e.job ->> 'heartbeat' IS NOT NULL AND e.job -> 'asynchronous' IS DISTINCT FROM 'true'
                THEN 'heartbeat is given for a job that is not asynchronous'
            ELSE (SELECT format('it has a field "%s"', k.name)
                FROM jsonb_object_keys(e.job) k (name) WHERE k.name <> ALL (known) LIMIT 1)
        END AS wrong
    ) w
    WHERE w.wrong IS NOT NULL ORDER BY e.place LIMIT 1;
    IF place IS NOT NULL THEN
        RAISE EXCEPTION 'turnwise.enqueue_many: job % of %: %', place, many, wrong
            USING ERRCODE = 'invalid_parameter_value',
                HINT = format('A job is an object; its fields are %s; url and body are text.',
                    array_to_string(known, ', '));
    END IF;
    BEGIN
        RETURN QUERY SELECT turnwise.enqueue_array(jobs);
        RETURN;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        GET STACKED DIAGNOSTICS wrong = MESSAGE_TEXT, remedy = PG_EXCEPTION_HINT;
    END;
    -- Which of them is it?
    FOR place IN 1 .. many LOOP
        BEGIN
            PERFORM turnwise.enqueue_array(jsonb_build_array(jobs -> (place - 1)::integer));
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            GET STACKED DIAGNOSTICS wrong = MESSAGE_TEXT, remedy = PG_EXCEPTION_HINT;
            RAISE EXCEPTION 'turnwise.enqueue_many: job % of %: %', place, many, wrong
                USING ERRCODE = SQLSTATE, HINT = remedy;
        END;
    END LOOP;
    RAISE EXCEPTION 'turnwise.enqueue_many: %', wrong
        USING ERRCODE = 'invalid_parameter_value', HINT = remedy;
END $$;

-- Fire these times of a schedule, as 0010 has it; the jobs name it, and say what it says of them.
CREATE OR REPLACE FUNCTION turnwise.schedule_fire(
    p_name text, p_revision bigint, p_times bigint[], p_jobs uuid[], p_next bigint, p_skipped bigint,
    p_error text, p_forced boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    s turnwise.schedules;
    moment timestamptz;
BEGIN
    UPDATE turnwise.schedules d SET
        revision = d.revision + 1,
        next_at = turnwise.instant(p_next),
        last_at = coalesce(turnwise.instant(p_times[cardinality(p_times)]), d.last_at),
        skipped = d.skipped + p_skipped,
        error = p_error
    WHERE d.name = (
            -- One that somebody holds just now is left for the next look: it must hold up no other.
            SELECT h.name FROM turnwise.schedules h
            WHERE h.name = p_name AND h.revision = p_revision AND (p_forced OR h.paused_at IS NULL)
            FOR UPDATE SKIP LOCKED)
    RETURNING d.* INTO s;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    moment := turnwise.clock();
    WITH fired AS (
        INSERT INTO turnwise.firings AS f (schedule, at, job)
        SELECT p_name, turnwise.instant(g.at), g.job FROM unnest(p_times, p_jobs) g (at, job)
        ON CONFLICT DO NOTHING
        RETURNING f.at, f.job
    )
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, schedule,
        concurrency_key)
    SELECT f.job, s.queue, s.method, s.url, s.headers, s.body, s.priority, f.at, moment, moment,
        s.max_attempts, s.deadline_ms, s.retry_wait_ms, s.retry_wait_max_ms, s.asynchronous, s.heartbeat_ms, p_name,
        s.concurrency_key
    FROM fired f
    ON CONFLICT (id) DO NOTHING;
    -- What was fired long ago is not computed again.
    DELETE FROM turnwise.firings f WHERE f.schedule = p_name AND f.at < moment - interval '7 days';
    RETURN true;
END $$;
