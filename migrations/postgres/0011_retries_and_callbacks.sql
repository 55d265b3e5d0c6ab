-- least-binary: 0.1.0
--
-- How a job is tried again, and jobs that go on after their call was answered.
--
-- A job that is marked asynchronous and answers 202 goes on elsewhere until its callback. It stands as queued until then, with
-- `awaits_since` set and `scheduled_at` at the time by which it must be heard of: when nothing comes, it is simply due, and the
-- next attempt begins. `node`, `token`, `attempt` and `started_at` still name the attempt that goes on, and the row of that
-- attempt says what is true if nothing is heard any more.

ALTER TABLE turnwise.jobs
    ADD COLUMN retry_wait_ms bigint,
    ADD COLUMN retry_wait_max_ms bigint,
    ADD COLUMN asynchronous boolean,
    ADD COLUMN heartbeat_ms bigint,
    ADD COLUMN awaits_since timestamptz,
    ADD COLUMN progress smallint,
    ADD COLUMN progress_note text,
    -- The schedule that has inserted it.
    ADD COLUMN schedule text,
    -- Of rows to come: those that are there say none of it.
    ADD CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000) NOT VALID,
    ADD CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000) NOT VALID,
    ADD CONSTRAINT heartbeat_is_1_s_to_24_h CHECK (heartbeat_ms BETWEEN 1000 AND 86400000) NOT VALID,
    ADD CONSTRAINT progress_is_0_to_100 CHECK (progress BETWEEN 0 AND 100) NOT VALID,
    ADD CONSTRAINT progress_note_has_at_most_1_kib CHECK (octet_length(progress_note) <= 1024) NOT VALID,
    ADD CONSTRAINT schedule_has_at_most_128_bytes CHECK (octet_length(schedule) <= 128) NOT VALID;
CREATE INDEX jobs_awaiting ON turnwise.jobs (id) WHERE awaits_since IS NOT NULL;

-- What a schedule's jobs say.
ALTER TABLE turnwise.schedules
    ADD COLUMN retry_wait_ms bigint
        CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000),
    ADD COLUMN retry_wait_max_ms bigint
        CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000),
    ADD COLUMN asynchronous boolean,
    ADD COLUMN heartbeat_ms bigint
        CONSTRAINT heartbeat_is_1_s_to_24_h CHECK (heartbeat_ms BETWEEN 1000 AND 86400000);

-- What a queue says of its jobs that they do not say themselves.
ALTER TABLE turnwise.queues
    ADD COLUMN retry_wait_ms bigint
        CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000),
    ADD COLUMN retry_wait_max_ms bigint
        CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000),
    -- Statuses after which a job is not tried again, as in '400,404,422'.
    ADD COLUMN permanent_statuses text
        CONSTRAINT permanent_statuses_have_at_most_256_bytes CHECK (octet_length(permanent_statuses) <= 256);

-- What the nodes of this database share and nobody else is to know: by `callback` they know a callback's URL again. Whoever
-- may only read should not read this.
CREATE TABLE turnwise.secrets (
    name text PRIMARY KEY,
    value text NOT NULL
);
-- Whoever may write the turn row is a node: it reads the secret, and the first one makes it.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'turnwise.turn'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT ON turnwise.secrets TO %s', given.role);
    END LOOP;
END $$;

-- The jobs that run, on a node or elsewhere, by the index of each kind: they are few among many, and no statistics know it.
CREATE FUNCTION turnwise.jobs_that_run() RETURNS SETOF turnwise.jobs LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY SELECT j.* FROM turnwise.jobs j WHERE j.state = 'running';
    RETURN QUERY SELECT j.* FROM turnwise.jobs j WHERE j.awaits_since IS NOT NULL AND (j.state = 'queued') IS TRUE;
END $$;

-- Claims ----------------------------------------------------------------------------------------------

-- What queues say of their jobs, by their names; null: none of them says anything.
CREATE FUNCTION turnwise.queue_policies() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_object_agg(q.name, jsonb_build_object('retry_wait_ms', q.retry_wait_ms,
            'retry_wait_max_ms', q.retry_wait_max_ms, 'permanent', q.permanent_statuses))
        FROM turnwise.queues q
        WHERE q.retry_wait_ms IS NOT NULL OR q.retry_wait_max_ms IS NOT NULL OR q.permanent_statuses IS NOT NULL);
END $$;

-- What few jobs say, as one JSON text in an array; null: nothing. It goes where the lanes stand in the last row of an answer, since
-- binaries read answers by the places of their columns.
CREATE FUNCTION turnwise.particulars(
    p_policies jsonb, p_queue text, p_retry_wait_ms bigint, p_retry_wait_max_ms bigint, p_asynchronous boolean,
    p_heartbeat_ms bigint, p_schedule text
) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_policies IS NOT NULL OR p_retry_wait_ms IS NOT NULL OR p_retry_wait_max_ms IS NOT NULL
            OR p_asynchronous IS NOT NULL OR p_schedule IS NOT NULL
        THEN ARRAY[jsonb_strip_nulls(coalesce(p_policies -> p_queue, '{}') || jsonb_strip_nulls(jsonb_build_object(
            'retry_wait_ms', p_retry_wait_ms, 'retry_wait_max_ms', p_retry_wait_max_ms,
            'asynchronous', p_asynchronous::integer, 'heartbeat_ms', p_heartbeat_ms, 'schedule', p_schedule)))::text]
        END
$$;

-- Claim up to `p_limit` jobs that are due at `p_due` from these lanes, in each no job that was due before `p_from`
-- (null: any), and none of a queue that is paused; the longest waiting first, where each point of priority counts as ten seconds of waiting. Their bodies, as far as they are
-- read at all, come to at most `p_bytes`, but for a single job's. The caller holds the node's row.
CREATE OR REPLACE FUNCTION turnwise.take_from(
    p_node uuid, p_token bigint, p_limit integer, p_bytes bigint,
    p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_due timestamptz, p_at timestamptz
) RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    paused text[];
    policies jsonb;
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
    IF cardinality(p_lanes) = 1 THEN
        SELECT array_agg(due.ctid), sum(due.bytes) INTO places, bytes FROM (
            SELECT j.ctid, octet_length(j.body) AS bytes FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = p_lanes[1] AND j.priority = p_priorities[1]
                AND j.scheduled_at >= starts[1] AND j.scheduled_at <= p_due
            ORDER BY j.scheduled_at LIMIT p_limit FOR UPDATE SKIP LOCKED
        ) due;
    ELSE
        WITH share (queue, priority, start, jobs) AS MATERIALIZED (
            -- How many of the first `p_limit` jobs come from each lane: nothing is locked for this, so that no more
            -- rows are locked below than are taken.
            SELECT first.queue, first.priority, first.start, count(*)
            FROM (
                SELECT l.queue, l.priority, l.start
                FROM unnest(p_lanes, p_priorities, starts) l (queue, priority, start)
                CROSS JOIN LATERAL (
                    SELECT j.scheduled_at FROM turnwise.jobs j
                    WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                        AND j.scheduled_at >= l.start AND j.scheduled_at <= p_due
                    ORDER BY j.scheduled_at LIMIT p_limit
                ) due
                ORDER BY due.scheduled_at - l.priority * interval '10 s' LIMIT p_limit
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
    policies := turnwise.queue_policies();
    RETURN QUERY
    WITH taken AS (
        UPDATE turnwise.jobs j SET
            state = 'running', node = p_node, token = p_token, started_at = p_at,
            attempt = j.attempt + 1, awaits_since = NULL, progress = NULL, progress_note = NULL
        WHERE j.ctid = ANY (places)
        RETURNING j.id, j.queue, j.method, j.url, j.headers, j.body, j.attempt, j.max_attempts,
            j.hand_backs, j.deadline_ms, j.scheduled_at, j.priority,
            j.retry_wait_ms, j.retry_wait_max_ms, j.asynchronous, j.heartbeat_ms, j.schedule
    )
    SELECT t.id::text, p_token, t.queue, t.method, t.url, t.headers::text,
        CASE WHEN octet_length(t.body) <= 262144 THEN t.body END,
        coalesce(octet_length(t.body), 0)::bigint, t.attempt::bigint, t.max_attempts::bigint,
        t.hand_backs::bigint, t.deadline_ms, turnwise.micros(t.scheduled_at), t.priority::bigint,
        NULL::bigint, NULL::bigint,
        turnwise.particulars(policies, t.queue, t.retry_wait_ms, t.retry_wait_max_ms, t.asynchronous, t.heartbeat_ms,
            t.schedule),
        NULL::smallint[], NULL::boolean
    FROM taken t
    ORDER BY t.scheduled_at - t.priority * interval '10 s', t.id;
END $$;

-- Bar a token and all before it from claiming, and return the jobs that run under it, as a claim does. Last a row without a job:
-- whether the node is lost.
CREATE FUNCTION turnwise.jobs_recovered(
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
                j.heartbeat_ms, j.schedule),
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

-- Ends ------------------------------------------------------------------------------------------------

-- Record the ends of attempts, each by itself. `outcomes`, in the order given: 0 recorded, 1 recorded before, 2 not this
-- claim's any more. Fates: 'succeeded', 'retry' (after `p_waits_us`), 'dead', 'await' (it goes on
-- elsewhere, and is heard of within `p_waits_us`), and 'back', which spends the attempt after ten hand-backs.
--
-- The node's row is not locked: a rescue takes a job by its row, and of the two the later one finds it taken.
--
-- `IS TRUE` hides from the planner that the index of running jobs would do: by it each of n ends is compared with n jobs.
CREATE OR REPLACE FUNCTION turnwise.jobs_finish(
    p_node uuid, p_jobs uuid[], p_tokens bigint[], p_fates text[], p_waits_us bigint[],
    p_statuses integer[], p_errors text[], p_answers bytea[],
    OUT outcomes integer[], OUT lost boolean
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at timestamptz := turnwise.clock();
    period integer := turnwise.period_ms();
    last timestamptz;
    until timestamptz;
    recorded bigint[];
    others bigint[];
    place bigint;
BEGIN
    SELECT n.last_check_in, n.lease_until INTO last, until
    FROM turnwise.nodes n WHERE n.id = p_node AND n.state <> 'lost';
    IF FOUND AND turnwise.check_in_is_due(last, until, at, period) THEN
        UPDATE turnwise.nodes n SET last_check_in = at, lease_until = at + turnwise.lease(period)
        WHERE n.id = p_node AND n.state <> 'lost';
    END IF;
    lost := NOT FOUND;
    IF lost THEN
        outcomes := array_fill(2, ARRAY[cardinality(p_jobs)]);
        PERFORM set_config('synchronous_commit', 'off', true);
        RETURN;
    END IF;
    WITH ended AS (
        UPDATE turnwise.jobs j SET
            state = 'succeeded', finished_at = at, last_status = g.status, last_error = g.error,
            answer = g.answer
        FROM unnest(p_jobs, p_tokens, p_fates, p_statuses, p_errors, p_answers)
            WITH ORDINALITY g (job, token, fate, status, error, answer, place)
        WHERE g.fate = 'succeeded' AND j.id = g.job
            AND (j.state = 'running' AND j.node = p_node AND j.token = g.token) IS TRUE
        RETURNING g.place
    )
    SELECT array_agg(e.place) INTO recorded FROM ended e;
    IF cardinality(recorded) = cardinality(p_jobs) THEN
        outcomes := array_fill(0, ARRAY[cardinality(p_jobs)]);
        RETURN;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (g.job) g.job, g.token,
            CASE
                WHEN g.fate <> 'back' OR j.hand_backs < 10 THEN g.fate
                WHEN j.attempt < j.max_attempts THEN 'retry'
                ELSE 'dead' END AS fate,
            g.wait_us, g.status, g.error, g.answer, g.place
        FROM unnest(p_jobs, p_tokens, p_fates, p_waits_us, p_statuses, p_errors, p_answers)
            WITH ORDINALITY g (job, token, fate, wait_us, status, error, answer, place)
        JOIN turnwise.jobs j
            ON j.id = g.job
            AND (j.state = 'running' AND j.node = p_node AND j.token = g.token) IS TRUE
        WHERE g.fate <> 'succeeded'
        ORDER BY g.job, g.place
    ), ended AS (
        UPDATE turnwise.jobs j SET
            state = CASE
                WHEN g.fate = 'dead' THEN 'dead'
                WHEN j.cancel_requested THEN 'cancelled'
                ELSE 'queued' END,
            finished_at = CASE WHEN g.fate = 'dead' OR j.cancel_requested THEN at END,
            scheduled_at = CASE
                WHEN j.cancel_requested THEN j.scheduled_at
                WHEN g.fate = 'retry' THEN at + g.wait_us * interval '1 microsecond'
                WHEN g.fate = 'await' THEN least(
                    at + g.wait_us * interval '1 microsecond', j.started_at + j.deadline_ms * interval '1 millisecond')
                ELSE j.scheduled_at END,
            queued_at = CASE WHEN g.fate IN ('retry', 'back', 'await') THEN at ELSE j.queued_at END,
            awaits_since = CASE WHEN g.fate = 'await' AND NOT j.cancel_requested THEN at END,
            attempt = CASE
                WHEN g.fate = 'back' THEN greatest(j.attempt - 1, 0)
                WHEN g.fate = 'dead' THEN least(j.attempt, j.max_attempts)
                ELSE j.attempt END,
            hand_backs = CASE WHEN g.fate = 'back' THEN j.hand_backs + 1 ELSE j.hand_backs END,
            last_status = g.status,
            last_error = CASE WHEN g.fate <> 'await' OR j.cancel_requested THEN g.error END
        FROM given g
        WHERE j.id = g.job
            AND (j.state = 'running' AND j.node = p_node AND j.token = g.token) IS TRUE
        RETURNING j.id, j.token, j.started_at, g.status, g.error, g.answer, g.place,
            CASE WHEN g.fate = 'back' THEN j.attempt + 1 ELSE j.attempt END AS attempt
    ), written AS (
        INSERT INTO turnwise.attempts AS a
            (job, node, token, attempt, started_at, finished_at, status, error, answer)
        SELECT e.id, p_node, e.token, e.attempt, e.started_at, at, e.status, e.error, e.answer
        FROM ended e
        ON CONFLICT DO NOTHING
    )
    SELECT array_agg(e.place) INTO others FROM ended e;
    outcomes := array_fill(2, ARRAY[cardinality(p_jobs)]);
    FOREACH place IN ARRAY coalesce(recorded || others, '{}') LOOP
        outcomes[place] := 0;
    END LOOP;
    FOR place IN
        SELECT g.place
        FROM unnest(p_jobs, p_tokens, outcomes) WITH ORDINALITY g (job, token, outcome, place)
        WHERE g.outcome = 2 AND (
            EXISTS (
                SELECT FROM turnwise.attempts a
                WHERE a.job = g.job AND a.node = p_node AND a.token = g.token
                    AND a.error IS DISTINCT FROM 'node lost')
            OR EXISTS (
                SELECT FROM turnwise.jobs j
                WHERE j.id = g.job AND j.state = 'succeeded' AND j.node = p_node
                    AND j.token = g.token))
    LOOP
        outcomes[place] := 1;
    END LOOP;
END $$;

-- What was heard of the attempt of a job under this claim, whether its call has been answered or not. Fates: 'alive' (heard of
-- within `p_wait_us` again, with its progress), 'succeeded', 'retry' (after `p_wait_us`), 'dead'. False when the attempt does not
-- go on any more.
CREATE FUNCTION turnwise.job_heard(
    p_job uuid, p_node uuid, p_token bigint, p_fate text, p_wait_us bigint, p_error text, p_answer bytea,
    p_progress integer, p_note text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz;
    found_job turnwise.jobs;
    goes_on_elsewhere boolean;
    next_state text;
BEGIN
    SELECT j.* INTO found_job FROM turnwise.jobs j
    WHERE j.id = p_job AND j.node = p_node AND j.token = p_token
        AND (j.state = 'running' OR j.state = 'queued' AND j.awaits_since IS NOT NULL)
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    at := turnwise.clock();
    goes_on_elsewhere := found_job.state = 'queued';
    IF p_fate = 'alive' THEN
        UPDATE turnwise.jobs j SET
            progress = coalesce(p_progress, j.progress), progress_note = coalesce(p_note, j.progress_note),
            queued_at = CASE WHEN goes_on_elsewhere THEN at ELSE j.queued_at END,
            scheduled_at = CASE WHEN goes_on_elsewhere
                THEN least(
                    at + p_wait_us * interval '1 microsecond',
                    greatest(j.started_at + j.deadline_ms * interval '1 millisecond', j.scheduled_at))
                ELSE j.scheduled_at END
        WHERE j.id = p_job;
        RETURN true;
    END IF;
    IF p_fate = 'succeeded' THEN
        DELETE FROM turnwise.attempts a WHERE a.job = p_job AND a.node = p_node AND a.token = p_token;
        UPDATE turnwise.jobs j SET
            state = 'succeeded', finished_at = at, awaits_since = NULL, last_error = NULL, answer = p_answer,
            last_status = CASE WHEN goes_on_elsewhere THEN j.last_status END
        WHERE j.id = p_job;
        RETURN true;
    END IF;
    INSERT INTO turnwise.attempts AS a
        (job, node, token, attempt, started_at, finished_at, status, error, answer)
    VALUES (p_job, p_node, p_token, found_job.attempt, found_job.started_at, at,
        CASE WHEN goes_on_elsewhere THEN found_job.last_status END, p_error, p_answer)
    ON CONFLICT (job, node, token) DO UPDATE SET
        finished_at = excluded.finished_at, error = excluded.error, answer = excluded.answer;
    next_state := CASE
        WHEN p_fate = 'dead' THEN 'dead'
        WHEN found_job.cancel_requested THEN 'cancelled'
        ELSE 'queued' END;
    UPDATE turnwise.jobs j SET
        state = next_state, awaits_since = NULL, last_error = p_error,
        last_status = CASE WHEN goes_on_elsewhere THEN j.last_status END,
        finished_at = CASE WHEN next_state <> 'queued' THEN at END,
        scheduled_at = CASE WHEN next_state = 'queued'
            THEN at + p_wait_us * interval '1 microsecond' ELSE j.scheduled_at END,
        queued_at = at
    WHERE j.id = p_job;
    RETURN true;
END $$;

-- A beat ----------------------------------------------------------------------------------------------

-- Nothing was heard between two beats that lie apart of a job that goes on elsewhere, unless by a word that came before the second: what
-- it has left to be heard of is as long as it was. (By then the clock may have been set, forward and back too.) How many rows that
-- changed; what somebody holds is passed over.
--
-- `IS TRUE` hides from the planner that the index of queued jobs would do: those that wait may be many.
CREATE FUNCTION turnwise.put_off(p_from timestamptz, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    places tid[];
    changed bigint;
BEGIN
    IF p_at <= p_from THEN
        RETURN 0;
    END IF;
    SELECT array_agg(e.ctid) INTO places FROM (
        SELECT q.ctid FROM turnwise.jobs q
        WHERE q.awaits_since IS NOT NULL AND (q.state = 'queued' AND q.scheduled_at >= p_from) IS TRUE
        FOR UPDATE SKIP LOCKED
    ) e;
    IF places IS NULL THEN
        RETURN 0;
    END IF;
    -- They are locked: each is where it was seen.
    UPDATE turnwise.jobs j SET
        queued_at = p_at, scheduled_at = j.scheduled_at + (p_at - greatest(p_from, j.queued_at))
    WHERE j.ctid = ANY (places);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;

-- The beat of 0005. An outage counts for no job that goes on elsewhere.
CREATE OR REPLACE FUNCTION turnwise.turn_beat(
    p_node uuid, p_believed bigint, p_token bigint, p_limit integer, p_bytes bigint,
    p_queues text[], p_except text[], p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.beat_answer LANGUAGE plpgsql AS $$
DECLARE
    r turnwise.turn;
    at timestamptz;
    lowest bigint;
    accepted boolean;
    rows bigint;
    claimed bigint := 0;
    changed bigint := 0;
    begun timestamptz := clock_timestamp();
    freed bigint := 0;
    full_look boolean := p_lanes IS NULL;
    looked_us bigint;
    due timestamptz;
    lanes text[] := p_lanes;
    priorities smallint[] := p_priorities;
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
        IF r.slot - r.previous >= 2 THEN
            changed := changed + turnwise.put_off(r.beaten_at, at);
        END IF;
        IF r.slot - r.previous > 2 THEN
            -- Nobody beat for a while: the database was away, not the nodes.
            UPDATE turnwise.nodes n SET lease_until = at + turnwise.lease(r.period_ms)
            WHERE n.lease_until >= r.beaten_at;
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        freed := turnwise.rescue(at, r.slot % 64 = 0 OR r.slot - r.previous > 2 OR at < r.beaten_at);
        changed := changed + freed;
        -- What went back into the queue now may lie before every mark.
        full_look := full_look OR changed > 0;
        IF p_limit > 0 AND p_token >= lowest THEN
            begun := clock_timestamp();
            -- A beat that came a little before its boundary claims what is due on it.
            due := greatest(at, least(
                turnwise.instant((r.slot - r.bias) * r.period_ms * 1000), at + interval '5 ms'));
            IF full_look THEN
                SELECT l.queues, l.priorities INTO lanes, priorities
                FROM turnwise.lanes(p_queues, p_except) l;
            END IF;
            RETURN QUERY SELECT
                c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint
            FROM turnwise.take_from(
                p_node, p_token, p_limit, p_bytes, lanes, priorities,
                CASE WHEN NOT full_look THEN p_from END, due, at) c;
            GET DIAGNOSTICS claimed = ROW_COUNT;
            looked_us := (extract(epoch FROM clock_timestamp() - begun) * 1000000)::bigint;
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
        NULL::bigint, looked_us, turnwise.micros(due),
        CASE WHEN full_look THEN lanes END, CASE WHEN full_look THEN priorities END,
        lowest IS NULL,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), accepted,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- Schedules -------------------------------------------------------------------------------------------

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
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, schedule)
    SELECT f.job, s.queue, s.method, s.url, s.headers, s.body, s.priority, f.at, moment, moment,
        s.max_attempts, s.deadline_ms, s.retry_wait_ms, s.retry_wait_max_ms, s.asynchronous, s.heartbeat_ms, p_name
    FROM fired f
    ON CONFLICT (id) DO NOTHING;
    -- What was fired long ago is not computed again.
    DELETE FROM turnwise.firings f WHERE f.schedule = p_name AND f.at < moment - interval '7 days';
    RETURN true;
END $$;

-- Enqueuing -------------------------------------------------------------------------------------------

-- A time in whole milliseconds, from `least_ms` to 24 h.
CREATE FUNCTION turnwise.checked_millis(what text, given interval, least_ms integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF extract(epoch FROM given) * 1000 < least_ms OR extract(epoch FROM given) > 86400 THEN
        RAISE EXCEPTION '% is %', what, given
            USING ERRCODE = 'invalid_parameter_value', HINT = format('It is a time from %s ms to 24 h.', least_ms);
    END IF;
    RETURN extract(epoch FROM given) * 1000;
END $$;

DROP FUNCTION turnwise.enqueue_unique(
    uuid, text, text, text, jsonb, bytea, integer, timestamptz, timestamptz, integer, bigint, text, timestamptz);

-- Enqueue a job that has a unique key, as 0008 has it.
CREATE FUNCTION turnwise.enqueue_unique(
    p_id uuid, p_queue text, p_method text, p_url text, p_headers jsonb, p_body bytea, p_priority integer,
    p_scheduled_at timestamptz, p_moment timestamptz, p_max_attempts integer, p_deadline_ms bigint,
    p_unique_key text, p_unique_until timestamptz,
    p_retry_wait_ms bigint DEFAULT NULL, p_retry_wait_max_ms bigint DEFAULT NULL, p_asynchronous boolean DEFAULT NULL,
    p_heartbeat_ms bigint DEFAULT NULL
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
            max_attempts, deadline_ms, unique_key, unique_until, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms)
        VALUES (
            p_id, p_queue, p_method, p_url, p_headers, p_body, p_priority, p_scheduled_at, p_moment, p_moment,
            p_max_attempts, p_deadline_ms, p_unique_key, p_unique_until,
            p_retry_wait_ms, p_retry_wait_max_ms, p_asynchronous, p_heartbeat_ms)
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

-- Many jobs, as the node and its commands enqueue them, as 0008 has it; `p_particulars`: what few of them say.
CREATE FUNCTION turnwise.jobs_enqueue(
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
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms)
    SELECT n.id, n.queue, n.method, n.url, n.headers, n.body, n.priority,
        coalesce(turnwise.instant(n.at), moment + n.wait_us * interval '1 microsecond'), moment, moment,
        n.max_attempts, n.deadline_ms, (n.more ->> 'retry_wait_ms')::bigint, (n.more ->> 'retry_wait_max_ms')::bigint,
        (n.more ->> 'asynchronous')::integer <> 0, (n.more ->> 'heartbeat_ms')::bigint
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
            (p_particulars[place] ->> 'asynchronous')::integer <> 0, (p_particulars[place] ->> 'heartbeat_ms')::bigint);
    END LOOP;
    RETURN ids::text[];
END $$;

-- For apps: four more arguments. -------------------------------------------------------------------------

DROP FUNCTION turnwise.enqueue(
    text, jsonb, bytea, text, timestamptz, integer, integer, interval, text, jsonb, uuid, text, interval);

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
    heartbeat interval DEFAULT NULL
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
            wait_ms, wait_max_ms, enqueue.asynchronous, beat_ms);
    END IF;
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms)
    VALUES (
        job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'),
        turnwise.checked_url(enqueue.url), turnwise.checked_headers(enqueue.headers),
        turnwise.checked_body(enqueue.json, enqueue.body), coalesce(enqueue.priority, 0),
        coalesce(enqueue.scheduled_at, moment), moment, moment, coalesce(enqueue.max_attempts, 20),
        coalesce(turnwise.checked_deadline_ms(enqueue.deadline), 600000),
        wait_ms, wait_max_ms, enqueue.asynchronous, beat_ms)
    ON CONFLICT (id) DO NOTHING;
    RETURN job;
END $$;

-- Those that an array describes, as 0008 has it.
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
            turnwise.checked_millis('heartbeat', g.heartbeat, 1000) AS heartbeat_ms, e.place
        FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid,
            unique_key text, unique_for interval, retry_wait interval, retry_wait_max interval, asynchronous boolean,
            heartbeat interval)
    ), enqueued AS (
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms)
        SELECT g.id, coalesce(g.queue, 'default'), coalesce(g.method, 'POST'),
            turnwise.checked_url(g.url), turnwise.checked_headers(g.headers),
            turnwise.checked_body(g.json, convert_to(g.body, 'UTF8')), coalesce(g.priority, 0),
            coalesce(g.scheduled_at, moment), moment, moment, coalesce(g.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(g.deadline), 600000),
            g.retry_wait_ms, g.retry_wait_max_ms, g.asynchronous, g.heartbeat_ms
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
            heartbeat interval)
        WHERE g.unique_key IS NOT NULL ORDER BY g.unique_key, e.place
    LOOP
        ids[keyed.place] := turnwise.enqueue(
            keyed.url, keyed.json, convert_to(keyed.body, 'UTF8'), keyed.queue, keyed.scheduled_at,
            keyed.priority, keyed.max_attempts, keyed.deadline, keyed.method, keyed.headers, keyed.id,
            keyed.unique_key, keyed.unique_for, keyed.retry_wait, keyed.retry_wait_max, keyed.asynchronous,
            keyed.heartbeat);
    END LOOP;
    RETURN QUERY SELECT i.id FROM unnest(ids) WITH ORDINALITY i (id, place) ORDER BY i.place;
END $$;

-- An array of objects, as 0008 has it.
CREATE OR REPLACE FUNCTION turnwise.enqueue_many(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    known CONSTANT text[] := ARRAY['url', 'json', 'body', 'queue', 'scheduled_at', 'priority',
        'max_attempts', 'deadline', 'method', 'headers', 'id',
        'unique_key', 'unique_for', 'retry_wait', 'retry_wait_max', 'asynchronous', 'heartbeat'];
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
