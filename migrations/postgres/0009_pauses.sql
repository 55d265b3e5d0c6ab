-- least-binary: 0.1.0
--
-- What people order of queues. A queue without a row here is as any other: it is not paused. Claims of every binary that uses
-- these functions pass over a paused queue.

CREATE TABLE turnwise.queues (
    name text PRIMARY KEY CONSTRAINT name_has_at_most_128_bytes CHECK (octet_length(name) <= 128),
    -- Since when no job of it is claimed; null: it is not paused.
    paused_at timestamptz
);

-- Whoever was given a privilege on the jobs is given it on a new table too: nodes need not be its owner.
CREATE FUNCTION turnwise.granted_as_jobs(new_table regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type, a.is_grantable,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'turnwise.jobs'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', given.privilege_type, new_table, given.role,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $$;
SELECT turnwise.granted_as_jobs('turnwise.queues');

CREATE FUNCTION turnwise.paused_queues() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT array_agg(q.name) FROM turnwise.queues q WHERE q.paused_at IS NOT NULL), '{}');
END $$;

-- The lanes that have jobs, each found by one probe of the index. From `p_queues` (null: from all) but for `p_except` and those
-- that are paused.
CREATE OR REPLACE FUNCTION turnwise.lanes(
    p_queues text[], p_except text[], OUT queues text[], OUT priorities smallint[]
) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    passed_over text[] := coalesce(p_except, '{}') || turnwise.paused_queues();
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
        WHERE q.name IS NOT NULL AND q.name <> ALL (passed_over)
        UNION
        SELECT u.name FROM unnest(p_queues) u (name)
        WHERE u.name <> ALL (passed_over)
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

