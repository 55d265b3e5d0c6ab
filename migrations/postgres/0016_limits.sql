-- least-binary: 0.1.0
--
-- How many jobs of a queue run at once, and how many are claimed in a time, on all nodes together. Claims of every binary that uses
-- these functions keep within them; one that does not know of them is not told when to ask again, and a later beat does.

ALTER TABLE turnwise.queues
    ADD COLUMN concurrency bigint
        CONSTRAINT concurrency_is_1_to_a_million CHECK (concurrency BETWEEN 1 AND 1000000),
    -- So many jobs in so many milliseconds.
    ADD COLUMN rate_jobs bigint
        CONSTRAINT rate_jobs_is_1_to_a_million CHECK (rate_jobs BETWEEN 1 AND 1000000),
    ADD COLUMN rate_per_ms bigint
        CONSTRAINT rate_per_is_1_ms_to_24_h CHECK (rate_per_ms BETWEEN 1 AND 86400000),
    -- So many of them at once after a time without any; null: as many as rate_jobs.
    ADD COLUMN rate_burst bigint
        CONSTRAINT rate_burst_is_1_to_a_million CHECK (rate_burst BETWEEN 1 AND 1000000),
    -- When all of the burst may be claimed again; null: now.
    ADD COLUMN rate_full_at timestamptz;

-- What a claim may take of a queue that has limits.
CREATE TYPE turnwise.room AS (
    queue text,
    -- At most so many jobs.
    jobs bigint,
    -- Places that are free; null: any number.
    places bigint,
    -- Of the bucket: how many it holds, when it will be full, how long a token takes and how many there may be; null: no rate.
    tokens bigint,
    full_at_us bigint,
    step_us bigint,
    burst bigint,
    -- What is stored lies farther ahead than it can: the clock was set back, or the rate is another.
    was_ahead boolean
);

-- The rooms of those queues of these lanes that have limits; null: none has. Their rows are locked until the end of the transaction,
-- so that what is counted stays true. A queue that another claim holds right now is closed to this one: whoever waited here would
-- hold up the turn.
CREATE FUNCTION turnwise.rooms(p_lanes text[], p_due timestamptz, p_at timestamptz) RETURNS turnwise.room[]
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
        WITH running AS (
            SELECT j.queue FROM turnwise.jobs j WHERE j.state = 'running' AND j.queue = ANY (held)
            UNION ALL
            SELECT j.queue FROM turnwise.jobs j
            WHERE j.awaits_since IS NOT NULL AND (j.state = 'queued') IS TRUE AND j.queue = ANY (held)
                AND j.scheduled_at > p_due AND j.awaits_since >= j.started_at
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
                    greatest(b.concurrency - (SELECT count(*) FROM running r WHERE r.queue = b.name), 0) END AS places,
                (b.most_us - greatest(least(coalesce(b.lacks_us, 0), b.most_us), 0)) / b.step_us AS tokens,
                now_us + greatest(least(coalesce(b.lacks_us, 0), b.most_us), 0) AS full_at_us,
                b.step_us, b.burst, coalesce(b.lacks_us > b.most_us, false) AS was_ahead
            FROM bucket b
        )
        SELECT array_agg((n.name, CASE WHEN r.name IS NULL THEN 0 ELSE least(r.places, r.tokens) END,
            CASE WHEN r.name IS NULL THEN 0 ELSE r.places END, r.tokens,
            CASE WHEN r.step_us IS NOT NULL THEN r.full_at_us END, r.step_us, r.burst, r.was_ahead)::turnwise.room)
        FROM unnest(names) n (name) LEFT JOIN room r ON r.name = n.name);
END $$;

-- Claim as take_from does, of each of these queues no more than there is room.
CREATE FUNCTION turnwise.take_within(
    p_rooms turnwise.room[], p_node uuid, p_token bigint, p_limit integer, p_bytes bigint,
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
    -- Nobody else claims from the queues that have limits: their rows are held.
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

-- What a claim took is entered, and what was kept back because of a limit is told: 1 when there is room as soon as a job ends, and
-- how many microseconds later a rate gives out the next one. Of that only the claim is told that took the last one.
CREATE FUNCTION turnwise.took(
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
            IF taken > 0 AND taken >= room.tokens THEN
                wait := room.full_at_us + taken * room.step_us - turnwise.micros(p_at)
                    - (room.burst - 1) * room.step_us;
                wait_us := least(wait_us, greatest(wait, 0));
            END IF;
        END IF;
    END LOOP;
END $$;

-- Claims outside the turn, as 0005 has them, within the limits.
CREATE OR REPLACE FUNCTION turnwise.jobs_claim(
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
    rooms turnwise.room[];
    kept record;
BEGIN
    SELECT NULL::bigint AS until_one_ends, NULL::bigint AS wait_us INTO kept;
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
        rooms := turnwise.rooms(lanes, at, at);
        IF rooms IS NULL THEN
            RETURN QUERY
            SELECT * FROM turnwise.take_from(
                p_node, p_token, p_limit, p_bytes, lanes, priorities, p_from, at, at);
            GET DIAGNOSTICS claimed = ROW_COUNT;
        ELSE
            RETURN QUERY
            SELECT * FROM turnwise.take_within(
                rooms, p_node, p_token, p_limit, p_bytes, lanes, priorities, p_from, at, at);
            GET DIAGNOSTICS claimed = ROW_COUNT;
            SELECT k.* INTO kept FROM turnwise.took(rooms, p_node, p_token, lanes, priorities, at, at) k;
        END IF;
    END IF;
    IF claimed = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY SELECT
        NULL::text, kept.until_one_ends, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        kept.wait_us, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::bigint, (extract(epoch FROM clock_timestamp() - begun) * 1000000)::bigint,
        turnwise.micros(at),
        CASE WHEN p_lanes IS NULL THEN lanes END, CASE WHEN p_lanes IS NULL THEN priorities END,
        false;
END $$;

-- A beat, as 0011 has it, within the limits.
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
    rooms turnwise.room[];
    kept record;
BEGIN
    SELECT NULL::bigint AS until_one_ends, NULL::bigint AS wait_us INTO kept;
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
            rooms := turnwise.rooms(lanes, due, at);
            IF rooms IS NULL THEN
                RETURN QUERY SELECT
                    c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                    NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                    NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint
                FROM turnwise.take_from(
                    p_node, p_token, p_limit, p_bytes, lanes, priorities,
                    CASE WHEN NOT full_look THEN p_from END, due, at) c;
                GET DIAGNOSTICS claimed = ROW_COUNT;
            ELSE
                RETURN QUERY SELECT
                    c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                    NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                    NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint
                FROM turnwise.take_within(
                    rooms, p_node, p_token, p_limit, p_bytes, lanes, priorities,
                    CASE WHEN NOT full_look THEN p_from END, due, at) c;
                GET DIAGNOSTICS claimed = ROW_COUNT;
                SELECT k.* INTO kept FROM turnwise.took(rooms, p_node, p_token, lanes, priorities, due, at) k;
            END IF;
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
        NULL::text, kept.until_one_ends, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        kept.wait_us, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::bigint, looked_us, turnwise.micros(due),
        CASE WHEN full_look THEN lanes END, CASE WHEN full_look THEN priorities END,
        lowest IS NULL,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), accepted,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;
