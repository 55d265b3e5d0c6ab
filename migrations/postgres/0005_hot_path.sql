-- least-binary: 0.1.0
--
-- Claiming and ending many jobs at a time, at a price that depends on them alone: not on how many wait, nor on how many
-- were claimed while another session kept an old snapshot open.

-- What an attempt that succeeded was answered. It stands in its job's row alone: `attempts` holds those that did not
-- succeed. (A binary that does not know the column writes a row of `attempts` for it; both are read.)
ALTER TABLE turnwise.jobs ADD COLUMN answer bytea;

-- The planner believes that a claim reads millions of rows, and compiles it: that took 700 ms for a claim of 500 jobs.
ALTER FUNCTION turnwise.take(uuid, bigint, integer, text[], text[], timestamptz, timestamptz) SET jit = off;
ALTER FUNCTION turnwise.rescue(timestamptz) SET jit = off;
ALTER FUNCTION turnwise.jobs_end(uuid, text[], bigint[], text[], bigint[], integer[], text[], bytea[]) SET jit = off;

-- What the functions answer ---------------------------------------------------------------------------

-- Jobs first; last a row without a job: how long the look for jobs took, up to when jobs were due for it, the lanes that
-- a full look met, and whether the node is lost.
CREATE TYPE turnwise.claim_answer AS (
    id text, token bigint, queue text, method text, url text, headers text, body bytea,
    body_bytes bigint, attempt bigint, max_attempts bigint, hand_backs bigint, deadline_ms bigint,
    scheduled_at bigint, priority bigint,
    looked_us bigint, due bigint, lanes text[], priorities smallint[], lost boolean
);

-- The same, with the turn row in the last row.
CREATE TYPE turnwise.beat_answer AS (
    id text, token bigint, queue text, method text, url text, headers text, body bytea,
    body_bytes bigint, attempt bigint, max_attempts bigint, hand_backs bigint, deadline_ms bigint,
    scheduled_at bigint, priority bigint,
    looked_us bigint, due bigint, lanes text[], priorities smallint[], lost boolean,
    epoch bigint, high bigint, slot bigint, previous bigint, bias bigint, period_ms integer,
    next_period_ms integer, next_period_from bigint, versions text, deputies text, marks text,
    started bigint, timeline bigint, done boolean, arrived bigint, answered bigint
);

-- Claims ----------------------------------------------------------------------------------------------
-- In all of these the planner is told how to go: along the index of the lanes, and to the rows by their places. No
-- statistics of a table that fills and empties within a second are near the truth.

-- The lanes that have jobs, each found by one probe of the index. From `p_queues` (null: from all) but for `p_except`.
CREATE FUNCTION turnwise.lanes(
    p_queues text[], p_except text[], OUT queues text[], OUT priorities smallint[]
) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH RECURSIVE queue (name) AS (
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
    )
    SELECT array_agg(l.queue), array_agg(l.priority) INTO queues, priorities
    FROM lane l WHERE l.priority IS NOT NULL;
END $$;

-- Claim up to `p_limit` jobs that are due at `p_due` from these lanes, in each no job that was due before `p_from`
-- (null: any); the longest waiting first, where each point of priority counts as ten seconds of waiting. Their bodies, as far as they are
-- read at all, come to at most `p_bytes`, but for a single job's. The caller holds the node's row.
CREATE FUNCTION turnwise.take_from(
    p_node uuid, p_token bigint, p_limit integer, p_bytes bigint,
    p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_due timestamptz, p_at timestamptz
) RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    starts timestamptz[];
    places tid[];
    bytes bigint;
BEGIN
    IF p_lanes IS NULL OR p_limit <= 0 THEN
        RETURN;
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
    RETURN QUERY
    WITH taken AS (
        UPDATE turnwise.jobs j SET
            state = 'running', node = p_node, token = p_token, started_at = p_at,
            attempt = j.attempt + 1
        WHERE j.ctid = ANY (places)
        RETURNING j.id, j.queue, j.method, j.url, j.headers, j.body, j.attempt, j.max_attempts,
            j.hand_backs, j.deadline_ms, j.scheduled_at, j.priority
    )
    SELECT t.id::text, p_token, t.queue, t.method, t.url, t.headers::text,
        CASE WHEN octet_length(t.body) <= 262144 THEN t.body END,
        coalesce(octet_length(t.body), 0)::bigint, t.attempt::bigint, t.max_attempts::bigint,
        t.hand_backs::bigint, t.deadline_ms, turnwise.micros(t.scheduled_at), t.priority::bigint,
        NULL::bigint, NULL::bigint, NULL::text[], NULL::smallint[], NULL::boolean
    FROM taken t
    ORDER BY t.scheduled_at - t.priority * interval '10 s', t.id;
END $$;

-- Whether a check-in of `last` is too old to go without another: a fifth of the lease. So it is after the clock was set back,
-- and where the lease is shorter than the period has become.
CREATE FUNCTION turnwise.check_in_is_due(
    p_last timestamptz, p_until timestamptz, p_at timestamptz, p_period_ms integer
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT p_last > p_at OR p_last + turnwise.lease(p_period_ms) / 5 <= p_at
        OR p_until < p_at + turnwise.lease(p_period_ms) * 4 / 5
$$;

-- Claim outside the turn, from the lanes that are given, or, when none are (`p_lanes` is null), from all that there are:
-- from `p_queues` (null: all) but for `p_except`. The node's row is locked, so that no token is barred meanwhile, and written only when a check-in
-- is due: each claim would leave a dead version of it.
CREATE FUNCTION turnwise.jobs_claim(
    p_node uuid, p_token bigint, p_limit integer, p_bytes bigint, p_queues text[], p_except text[],
    p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.claim_answer LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint;
    last timestamptz;
    until timestamptz;
    at timestamptz;
    period integer := turnwise.period_ms();
    claimed bigint := 0;
    begun timestamptz;
    lanes text[] := p_lanes;
    priorities smallint[] := p_priorities;
BEGIN
    SELECT n.token_floor, n.last_check_in, n.lease_until INTO lowest, last, until
    FROM turnwise.nodes n WHERE n.id = p_node AND n.state <> 'lost' FOR NO KEY UPDATE;
    IF lowest IS NULL THEN
        RETURN QUERY SELECT
            NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
            NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
            NULL::bigint, 0::bigint, NULL::bigint, NULL::text[], NULL::smallint[], true;
        RETURN;
    END IF;
    at := turnwise.clock();
    IF turnwise.check_in_is_due(last, until, at, period) THEN
        PERFORM turnwise.check_in(
            p_node, at, period, p_running, p_offset_us, p_offset_error_us, p_transit_us);
    END IF;
    begun := clock_timestamp();
    IF p_lanes IS NULL THEN
        SELECT l.queues, l.priorities INTO lanes, priorities
        FROM turnwise.lanes(p_queues, p_except) l;
    END IF;
    IF p_token >= lowest THEN
        RETURN QUERY
        SELECT * FROM turnwise.take_from(
            p_node, p_token, p_limit, p_bytes, lanes, priorities, p_from, at, at);
        GET DIAGNOSTICS claimed = ROW_COUNT;
    END IF;
    IF claimed = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY SELECT
        NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::bigint, (extract(epoch FROM clock_timestamp() - begun) * 1000000)::bigint,
        turnwise.micros(at),
        CASE WHEN p_lanes IS NULL THEN lanes END, CASE WHEN p_lanes IS NULL THEN priorities END,
        false;
END $$;

-- Ends ------------------------------------------------------------------------------------------------

-- Record the ends of attempts, each by itself. `outcomes`, in the order given: 0 recorded, 1 recorded before, 2 not this
-- claim's any more. Fates: 'succeeded', 'retry' (after `p_waits_us`), 'dead', and 'back', which spends the attempt after
-- ten hand-backs.
--
-- The node's row is not locked: a rescue takes a job by its row, and of the two the later one finds it taken.
--
-- `IS TRUE` hides from the planner that the index of running jobs would do: by it each of n ends is compared with n jobs.
CREATE FUNCTION turnwise.jobs_finish(
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
                WHEN g.fate = 'retry' AND NOT j.cancel_requested
                THEN at + g.wait_us * interval '1 microsecond'
                ELSE j.scheduled_at END,
            queued_at = CASE WHEN g.fate IN ('retry', 'back') THEN at ELSE j.queued_at END,
            attempt = CASE WHEN g.fate = 'back' THEN greatest(j.attempt - 1, 0) ELSE j.attempt END,
            hand_backs = CASE WHEN g.fate = 'back' THEN j.hand_backs + 1 ELSE j.hand_backs END,
            last_status = g.status,
            last_error = g.error
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

-- A beat ----------------------------------------------------------------------------------------------

-- Declare lost the nodes that hold jobs and whose lease has run out, and free up to a thousand jobs of lost and unknown
-- nodes. How many rows that changed. Looks at the nodes whose lease ran out within the last minute, or, with `p_all`, at
-- every node that holds a job: that is dear while an old snapshot keeps what was claimed in the index.
CREATE FUNCTION turnwise.rescue(p_at timestamptz, p_all boolean) RETURNS bigint LANGUAGE plpgsql
SET jit = off AS $$
DECLARE
    dead uuid[];
BEGIN
    IF p_all THEN
        RETURN turnwise.rescue(p_at);
    END IF;
    SELECT array_agg(n.id) INTO dead FROM turnwise.nodes n
    WHERE n.lease_until < p_at AND n.lease_until >= p_at - interval '1 minute' AND EXISTS (
        SELECT FROM turnwise.jobs j WHERE j.state = 'running' AND j.node = n.id);
    IF dead IS NULL THEN
        RETURN 0;
    END IF;
    RETURN turnwise.rescue(p_at);
END $$;

-- The beat of 0001, with claims from lanes that the node knows, of a bounded size.
CREATE FUNCTION turnwise.turn_beat(
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
