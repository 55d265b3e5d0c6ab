-- least-binary: 0.1.0
--
-- Limits as 0016 has them: what runs is walked once for all queues that have any, a token is not given out twice by two claims that come
-- within a moment of each other, and what a rate keeps back is told.

-- The rooms of those queues of these lanes that have limits, as 0016 has it.
CREATE OR REPLACE FUNCTION turnwise.rooms(p_lanes text[], p_due timestamptz, p_at timestamptz) RETURNS turnwise.room[]
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    names text[];
    held text[];
    now_us CONSTANT bigint := turnwise.micros(p_at);
BEGIN
    SELECT array_agg(q.name ORDER BY q.name) INTO names FROM turnwise.queues q
    WHERE (q.concurrency IS NOT NULL OR q.rate_jobs IS NOT NULL) AND q.name = ANY (p_lanes);
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
            SELECT q.name, q.concurrency, b.step_us, b.burst, b.step_us * b.burst AS most_us,
                turnwise.micros(q.rate_full_at) - now_us AS lacks_us
            FROM turnwise.queues q
            CROSS JOIN LATERAL (
                SELECT (q.rate_per_ms * 1000 + q.rate_jobs - 1) / q.rate_jobs AS step_us,
                    coalesce(q.rate_burst, q.rate_jobs) AS burst
            ) b
            WHERE q.name = ANY (held)
        ), room AS (
            SELECT b.name,
                CASE WHEN b.concurrency IS NOT NULL THEN
                    greatest(b.concurrency - coalesce((SELECT r.jobs FROM running r WHERE r.queue = b.name), 0), 0) END AS places,
                (b.most_us - greatest(least(b.lacks_us, b.most_us), 0)) / b.step_us AS tokens,
                now_us + greatest(CASE WHEN b.was_ahead THEN b.most_us ELSE b.lacks_us END, 0) AS full_at_us,
                b.step_us, b.burst, b.was_ahead
            FROM (
                SELECT e.name, e.concurrency, e.step_us, e.burst, e.most_us, coalesce(e.lacks_us, 0) AS lacks_us,
                    -- (Less than a second: a claim whose clock was read a little later came first.)
                    coalesce(e.lacks_us > e.most_us + 1000000, false) AS was_ahead
                FROM bucket e
            ) b
        )
        SELECT array_agg((n.name, CASE WHEN r.name IS NULL THEN 0 ELSE least(r.places, r.tokens) END,
            CASE WHEN r.name IS NULL THEN 0 ELSE r.places END, r.tokens,
            CASE WHEN r.step_us IS NOT NULL THEN r.full_at_us END, r.step_us, r.burst, r.was_ahead)::turnwise.room)
        FROM unnest(names) n (name) LEFT JOIN room r ON r.name = n.name);
END $$;

-- What a claim took is entered, and what was kept back because of a limit is told, as 0016 has it: 1 when there is room as soon as a job
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
        IF taken >= room.jobs AND EXISTS (
            SELECT FROM unnest(p_lanes, p_priorities) l (queue, priority)
            CROSS JOIN LATERAL (
                SELECT FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                    AND j.scheduled_at <= p_due
                ORDER BY j.scheduled_at LIMIT 1
            ) due
            WHERE l.queue = room.queue
        ) THEN
            IF taken >= room.places THEN
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
