-- least-binary: 0.1.0
--
-- Batches: jobs that belong together, and jobs that wait until those have ended. Whether a batch has ended is read from the states of
-- its jobs, under the lock of its row; nothing is counted as jobs end, so that ends and rescues know nothing of batches. A binary
-- that does not know them runs their jobs, and a newer one ends them.

CREATE TABLE turnwise.batches (
    id uuid PRIMARY KEY DEFAULT turnwise.uuid7(),
    name text CONSTRAINT name_has_at_most_256_bytes CHECK (octet_length(name) <= 256),
    -- Open: anybody may add jobs, and it does not end. Sealed: it ends with the last of its jobs.
    state text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'sealed', 'succeeded', 'failed', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT turnwise.clock(),
    ended_at timestamptz,
    -- When a sealed one is looked at next; null: it is not.
    look_at timestamptz,
    -- How many of its jobs ended how, as it was when it ended.
    succeeded bigint,
    dead bigint,
    cancelled bigint
);
CREATE INDEX batches_look ON turnwise.batches (look_at) WHERE look_at IS NOT NULL;

-- A job that waits for a batch is put off until 2260 (`turnwise.held_until`), and has a row here; the row stays when the job runs.
CREATE TABLE turnwise.waits (
    job uuid PRIMARY KEY,
    batch uuid NOT NULL,
    -- It runs only if all jobs of the batch succeeded.
    on_success boolean NOT NULL
);
CREATE INDEX waits_batch ON turnwise.waits (batch, job);

SELECT turnwise.granted_as_jobs('turnwise.batches');
SELECT turnwise.granted_as_jobs('turnwise.waits');

ALTER TABLE turnwise.jobs ADD COLUMN batch uuid;
CREATE INDEX jobs_batch ON turnwise.jobs (batch, state) WHERE batch IS NOT NULL;
CREATE INDEX jobs_batch_id ON turnwise.jobs (batch, id) WHERE batch IS NOT NULL;

-- Until then a job is put off that waits.
CREATE FUNCTION turnwise.held_until() RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$ SELECT timestamptz '2260-01-01 00:00:00+00' $$;

-- What is refused has a SQLSTATE of its own, TWB01 to TWB07, and its DETAIL names the ids for programs.

-- Whether jobs can be enqueued into these batches, and to wait for those, place by place. Their rows are held until the end of the
-- transaction: a batch does not end meanwhile.
CREATE FUNCTION turnwise.batches_check(p_batches uuid[], p_afters uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ties CONSTANT boolean := EXISTS (
        SELECT FROM unnest(p_batches, p_afters) g (batch, after) WHERE g.batch IS NOT NULL AND g.after IS NOT NULL);
    named record;
    state text;
BEGIN
    FOR named IN
        SELECT DISTINCT n.id FROM unnest(p_batches || p_afters) n (id) WHERE n.id IS NOT NULL ORDER BY n.id
    LOOP
        IF ties THEN
            -- Whoever ties two batches the other way round waits, and sees it.
            SELECT b.state INTO state FROM turnwise.batches b WHERE b.id = named.id FOR UPDATE;
        ELSE
            SELECT b.state INTO state FROM turnwise.batches b WHERE b.id = named.id FOR SHARE;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no batch %', named.id
                USING ERRCODE = 'TWB01', DETAIL = named.id::text, HINT = 'Make one, or leave it out.';
        END IF;
        IF state NOT IN ('open', 'sealed') AND named.id = ANY (p_batches) THEN
            RAISE EXCEPTION 'the batch % has ended (%): no job can be added to it', named.id, state
                USING ERRCODE = 'TWB02', DETAIL = format('%s %s', named.id, state), HINT = 'Make another.';
        END IF;
    END LOOP;
    IF NOT ties THEN
        RETURN;
    END IF;
    -- However many batches lie between: whoever closes a circle sees all of it.
    PERFORM pg_advisory_xact_lock(hashtextextended('turnwise: ties between batches', 0));
    FOR named IN
        SELECT DISTINCT g.batch, g.after FROM unnest(p_batches, p_afters) g (batch, after)
        WHERE g.batch IS NOT NULL AND g.after IS NOT NULL
    LOOP
        IF turnwise.batch_waits_for(named.after, named.batch) THEN
            RAISE EXCEPTION 'a job of the batch % cannot wait for the batch %, which waits for it', named.batch, named.after
                USING ERRCODE = 'TWB03', DETAIL = format('%s %s', named.batch, named.after),
                    HINT = 'Neither would ever end.';
        END IF;
    END LOOP;
END $$;

-- Whether a batch is another, or waits for it by a job of its own that has not ended.
CREATE FUNCTION turnwise.batch_waits_for(p_batch uuid, p_other uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        WITH RECURSIVE waited (batch) AS (
            SELECT p_batch
            UNION
            SELECT w.batch FROM waited d
            JOIN turnwise.jobs j ON j.batch = d.batch AND j.state = 'queued'
            JOIN turnwise.waits w ON w.job = j.id
            JOIN turnwise.batches b ON b.id = w.batch AND b.state IN ('open', 'sealed')
        )
        SELECT FROM waited d WHERE d.batch = p_other);
END $$;

-- A job that is inserted by plain SQL joins a batch that goes on, or is refused. With its owner's rights: who inserts jobs need not
-- read batches.
CREATE FUNCTION turnwise.job_joins() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One that is there already stays as it is, if that is what the INSERT says of it, though its batch may have ended.
    IF NOT EXISTS (SELECT FROM turnwise.jobs j WHERE j.id = NEW.id) THEN
        PERFORM turnwise.batches_check(ARRAY[NEW.batch], '{}');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_joins BEFORE INSERT ON turnwise.jobs
    FOR EACH ROW WHEN (NEW.batch IS NOT NULL) EXECUTE FUNCTION turnwise.job_joins();
-- Of a trigger nobody needs it.
REVOKE EXECUTE ON FUNCTION turnwise.job_joins() FROM PUBLIC;

-- A job that was inserted just now waits for a batch, whose row is held.
CREATE FUNCTION turnwise.job_waits(p_job uuid, p_batch uuid, p_on_success boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ended text;
BEGIN
    INSERT INTO turnwise.waits (job, batch, on_success) VALUES (p_job, p_batch, p_on_success) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT b.state INTO ended FROM turnwise.batches b WHERE b.id = p_batch;
    IF ended IN ('open', 'sealed') THEN
        UPDATE turnwise.jobs j SET scheduled_at = turnwise.held_until() WHERE j.id = p_job;
    ELSIF ended = 'cancelled' OR ended = 'failed' AND p_on_success THEN
        PERFORM turnwise.jobs_wait_in_vain(ARRAY[p_job], ended = 'cancelled');
    END IF;
END $$;

-- What these jobs wait for does not come.
CREATE FUNCTION turnwise.jobs_wait_in_vain(p_jobs uuid[], p_is_cancelled boolean) RETURNS void LANGUAGE sql AS $$
    UPDATE turnwise.jobs j SET
        state = 'cancelled', finished_at = turnwise.clock(), cancel_requested = true,
        last_error = CASE WHEN p_is_cancelled THEN 'cancelled: the batch that it waited for was cancelled'
            ELSE 'cancelled: not every job of the batch that it waited for succeeded' END
    WHERE j.id = ANY (p_jobs) AND j.state = 'queued'
$$;

-- Many jobs, as jobs_enqueue has it; each belongs to a batch and waits for one, where they are named.
CREATE FUNCTION turnwise.jobs_enqueue_in(
    p_ids uuid[], p_queues text[], p_methods text[], p_urls text[], p_headers jsonb[], p_bodies bytea[],
    p_priorities integer[], p_at bigint[], p_waits_us bigint[], p_max_attempts integer[],
    p_deadlines_ms bigint[], p_keys text[], p_windows_us bigint[], p_particulars jsonb[],
    p_batches uuid[], p_afters uuid[], p_on_success boolean[]
) RETURNS text[] LANGUAGE plpgsql
SET lock_timeout = '5s' AS $$
DECLARE
    known uuid[];
    ids text[];
    waits record;
BEGIN
    SELECT coalesce(array_agg(j.id), '{}') INTO known FROM turnwise.jobs j WHERE j.id = ANY (p_ids);
    PERFORM turnwise.batches_check(array_agg(g.batch), array_agg(g.after))
    FROM unnest(p_ids, p_batches, p_afters) g (id, batch, after) WHERE g.id <> ALL (known);
    ids := turnwise.jobs_enqueue(
        p_ids, p_queues, p_methods, p_urls, p_headers, p_bodies, p_priorities, p_at, p_waits_us,
        p_max_attempts, p_deadlines_ms, p_keys, p_windows_us, p_particulars);
    -- What was there, and whoever else holds a unique key, stays what it is.
    UPDATE turnwise.jobs j SET batch = g.batch
    FROM unnest(p_ids, ids, p_batches) g (id, got, batch)
    WHERE j.id = g.id AND g.got = g.id::text AND g.batch IS NOT NULL AND g.id <> ALL (known);
    FOR waits IN
        SELECT g.id, g.after, g.on_success FROM unnest(p_ids, ids, p_afters, p_on_success) g (id, got, after, on_success)
        WHERE g.got = g.id::text AND g.after IS NOT NULL AND g.id <> ALL (known)
    LOOP
        PERFORM turnwise.job_waits(waits.id, waits.after, waits.on_success);
    END LOOP;
    RETURN ids;
END $$;

-- A batch with its first jobs, and those that wait for it. The same again changes nothing.
CREATE FUNCTION turnwise.batch_make(
    p_batch uuid, p_name text, p_is_sealed boolean,
    p_ids uuid[], p_queues text[], p_methods text[], p_urls text[], p_headers jsonb[], p_bodies bytea[],
    p_priorities integer[], p_at bigint[], p_waits_us bigint[], p_max_attempts integer[],
    p_deadlines_ms bigint[], p_keys text[], p_windows_us bigint[], p_particulars jsonb[],
    p_batches uuid[], p_afters uuid[], p_on_success boolean[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
BEGIN
    INSERT INTO turnwise.batches (id, name) VALUES (p_batch, p_name) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- Again, since an answer was lost: its jobs, or who holds their keys.
        SELECT array_agg(coalesce(
                (SELECT j.id FROM turnwise.jobs j WHERE j.id = g.id),
                (SELECT j.id FROM turnwise.jobs j WHERE j.unique_key = g.key))::text ORDER BY g.place)
        INTO ids FROM unnest(p_ids, p_keys) WITH ORDINALITY g (id, key, place);
        IF array_position(ids, NULL) IS NOT NULL THEN
            RAISE EXCEPTION 'there is a batch % already', p_batch USING ERRCODE = 'TWB06', DETAIL = p_batch::text;
        END IF;
        RETURN coalesce(ids, '{}');
    END IF;
    ids := turnwise.jobs_enqueue_in(
        p_ids, p_queues, p_methods, p_urls, p_headers, p_bodies, p_priorities, p_at, p_waits_us,
        p_max_attempts, p_deadlines_ms, p_keys, p_windows_us, p_particulars,
        p_batches, p_afters, p_on_success);
    IF p_is_sealed THEN
        PERFORM turnwise.batch_sealed(p_batch);
    END IF;
    RETURN ids;
END $$;

-- Nobody but its own jobs will add any more. The state that it had before; null: there is no such batch.
CREATE FUNCTION turnwise.batch_sealed(p_batch uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before text;
BEGIN
    SELECT b.state INTO before FROM turnwise.batches b WHERE b.id = p_batch FOR UPDATE;
    IF before = 'open' THEN
        UPDATE turnwise.batches b SET state = 'sealed', look_at = turnwise.clock() WHERE b.id = p_batch;
    END IF;
    RETURN before;
END $$;

-- The batch that these jobs are: `p_new`, which is made of them where they are in none.
CREATE FUNCTION turnwise.batch_of(p_jobs uuid[], p_new uuid) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    named record;
    found_batch uuid;
    of_a_batch uuid;
    shared uuid;
    many bigint := 0;
    without bigint := 0;
    ended text;
BEGIN
    FOR named IN SELECT DISTINCT n.id FROM unnest(p_jobs) n (id) ORDER BY n.id LOOP
        SELECT j.batch INTO found_batch FROM turnwise.jobs j WHERE j.id = named.id FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no job % to wait for', named.id USING ERRCODE = 'TWB04', DETAIL = named.id::text;
        END IF;
        many := many + 1;
        IF found_batch IS NULL THEN
            without := without + 1;
        ELSIF shared IS NULL THEN
            shared := found_batch;
            of_a_batch := named.id;
        ELSIF shared <> found_batch THEN
            without := without + 1;
        END IF;
    END LOOP;
    IF shared IS NULL THEN
        INSERT INTO turnwise.batches (id, state, look_at) VALUES (p_new, 'sealed', turnwise.clock());
        UPDATE turnwise.jobs j SET batch = p_new WHERE j.id = ANY (p_jobs);
        RETURN p_new;
    END IF;
    IF without > 0 OR many <> (SELECT count(*) FROM turnwise.jobs j WHERE j.batch = shared) THEN
        RAISE EXCEPTION 'the job % belongs to the batch %', of_a_batch, shared
            USING ERRCODE = 'TWB05', DETAIL = format('%s %s', of_a_batch, shared), HINT = 'Wait for that.';
    END IF;
    SELECT b.state INTO ended FROM turnwise.batches b WHERE b.id = shared FOR SHARE;
    IF ended NOT IN ('open', 'sealed', 'cancelled') AND EXISTS (
        SELECT FROM turnwise.jobs j WHERE j.batch = shared
            AND (j.state IN ('queued', 'running') OR (j.state = 'succeeded') < (ended = 'succeeded')))
        OR ended = 'failed' AND NOT EXISTS (
            SELECT FROM turnwise.jobs j WHERE j.batch = shared AND j.state <> 'succeeded') THEN
        -- They were given another try since: what it says of them is not so any more.
        RAISE EXCEPTION 'the batch % has ended (%), and its jobs were given another try', shared, ended
            USING ERRCODE = 'TWB07', DETAIL = format('%s %s', shared, ended), HINT = 'Enqueue the job when they have ended.';
    END IF;
    RETURN shared;
END $$;

-- A job that runs when all of these jobs have ended: their batch, and its id.
CREATE FUNCTION turnwise.jobs_enqueue_after(
    p_jobs uuid[], p_needs_success boolean, p_batch uuid, p_new uuid,
    p_ids uuid[], p_queues text[], p_methods text[], p_urls text[], p_headers jsonb[], p_bodies bytea[],
    p_priorities integer[], p_at bigint[], p_waits_us bigint[], p_max_attempts integer[],
    p_deadlines_ms bigint[], p_keys text[], p_windows_us bigint[], p_particulars jsonb[]
) RETURNS text[] LANGUAGE plpgsql
SET lock_timeout = '5s' AS $$
DECLARE
    batch uuid;
    ids text[];
BEGIN
    SELECT w.batch INTO batch FROM turnwise.waits w WHERE w.job = p_ids[1];
    IF FOUND THEN
        -- Again, since an answer was lost.
        RETURN ARRAY[batch::text, p_ids[1]::text];
    END IF;
    batch := turnwise.batch_of(p_jobs, p_new);
    ids := turnwise.jobs_enqueue_in(
        p_ids, p_queues, p_methods, p_urls, p_headers, p_bodies, p_priorities, p_at, p_waits_us,
        p_max_attempts, p_deadlines_ms, p_keys, p_windows_us, p_particulars,
        ARRAY[p_batch], ARRAY[batch], ARRAY[p_needs_success]);
    RETURN ARRAY[batch::text, ids[1]];
END $$;

-- Cancel a batch and what waits for it: the state that it had before; null: there is no such batch.
CREATE FUNCTION turnwise.batch_cancel(p_batch uuid) RETURNS text LANGUAGE plpgsql
SET lock_timeout = '5s' AS $$
DECLARE
    before text;
BEGIN
    SELECT b.state INTO before FROM turnwise.batches b WHERE b.id = p_batch FOR UPDATE;
    IF before IN ('open', 'sealed') THEN
        UPDATE turnwise.batches b SET state = 'cancelled', ended_at = turnwise.clock(), look_at = NULL
        WHERE b.id = p_batch;
        PERFORM turnwise.jobs_wait_in_vain(turnwise.jobs_that_wait(p_batch, false), true);
    END IF;
    RETURN before;
END $$;

-- The jobs that still wait for a batch, or for its success; they are held.
CREATE FUNCTION turnwise.jobs_that_wait(p_batch uuid, p_on_success_only boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT j.id FROM turnwise.waits w JOIN turnwise.jobs j ON j.id = w.job
        WHERE w.batch = p_batch AND (w.on_success OR NOT p_on_success_only)
            AND (j.state = 'queued' AND j.scheduled_at = turnwise.held_until()) IS TRUE
        ORDER BY j.id FOR NO KEY UPDATE OF j);
END $$;

-- Look at a batch whose row is held: how it ended now, if it did, and the batches that are to be looked at because of it. What waits for
-- it runs, or is cancelled.
CREATE FUNCTION turnwise.batch_settle(p_batch uuid, p_created_at timestamptz, OUT ended text, OUT again uuid[])
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    moment CONSTANT timestamptz := turnwise.clock();
    -- The older it is, the longer it may wait: at its end at the latest it is looked at anyway, as a rule.
    next_look CONSTANT timestamptz :=
        moment + least(greatest((moment - p_created_at) / 20, interval '5 s'), interval '60 s');
    counts record;
    jobs uuid[];
    goes_on boolean;
BEGIN
    -- Statements of their own: they see what was committed before the lock was given.
    goes_on := EXISTS (SELECT FROM turnwise.jobs j WHERE j.batch = p_batch AND j.state = 'queued')
        OR EXISTS (SELECT FROM turnwise.jobs j WHERE j.batch = p_batch AND j.state = 'running');
    IF NOT goes_on THEN
        -- All of it from one view: a job may be given another try in between.
        SELECT count(*) FILTER (WHERE j.state IN ('queued', 'running')) AS unfinished,
            count(*) FILTER (WHERE j.state = 'succeeded') AS succeeded, count(*) FILTER (WHERE j.state = 'dead') AS dead,
            count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled
        INTO counts FROM turnwise.jobs j WHERE j.batch = p_batch;
        goes_on := counts.unfinished > 0;
    END IF;
    IF goes_on THEN
        -- (Farther ahead than it can be: the clock was set back.)
        UPDATE turnwise.batches b SET look_at = next_look
        WHERE b.id = p_batch AND (b.look_at < moment + interval '2.5 s' OR b.look_at > next_look);
        RETURN;
    END IF;
    ended := CASE WHEN counts.dead + counts.cancelled = 0 THEN 'succeeded' ELSE 'failed' END;
    UPDATE turnwise.batches b SET
        state = batch_settle.ended, ended_at = moment, look_at = NULL, succeeded = counts.succeeded, dead = counts.dead,
        cancelled = counts.cancelled
    WHERE b.id = p_batch;
    IF ended = 'failed' THEN
        jobs := turnwise.jobs_that_wait(p_batch, true);
        PERFORM turnwise.jobs_wait_in_vain(jobs, false);
        again := ARRAY(SELECT DISTINCT j.batch FROM turnwise.jobs j WHERE j.id = ANY (jobs) AND j.batch IS NOT NULL);
    END IF;
    jobs := turnwise.jobs_that_wait(p_batch, false);
    UPDATE turnwise.jobs j SET scheduled_at = moment, queued_at = moment WHERE j.id = ANY (jobs);
END $$;

-- Look at these batches: each that is sealed and whose jobs have all ended ends now, and is answered with its state. Without a state: it
-- is to be looked at again soon. Whoever adds a job just now, or holds what waits, is not waited for, and holds up no other batch.
CREATE FUNCTION turnwise.batches_settle(p_batches uuid[]) RETURNS TABLE (batch text, ended text) LANGUAGE plpgsql AS $$
DECLARE
    looked uuid;
    here record;
    done record;
BEGIN
    FOR looked IN SELECT DISTINCT n.id FROM unnest(p_batches) n (id) ORDER BY n.id LOOP
        BEGIN
            SELECT b.state, b.created_at INTO here FROM turnwise.batches b WHERE b.id = looked FOR UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                RETURN QUERY SELECT b.id::text, NULL::text FROM turnwise.batches b WHERE b.id = looked AND b.state = 'sealed';
                CONTINUE;
            END IF;
            CONTINUE WHEN here.state <> 'sealed';
            SELECT s.* INTO done FROM turnwise.batch_settle(looked, here.created_at) s;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RETURN QUERY SELECT looked::text, NULL::text;
            CONTINUE;
        END;
        IF done.ended IS NOT NULL THEN
            RETURN QUERY SELECT looked::text, done.ended;
            RETURN QUERY SELECT a.id::text, NULL::text FROM unnest(done.again) a (id);
        END IF;
    END LOOP;
END $$;

-- The earliest time that is to be fired, or that a batch is to be looked at, in microseconds; null: there is none. A schedule that no
-- node has looked at is due.
CREATE OR REPLACE FUNCTION turnwise.next_schedule() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM turnwise.schedules s WHERE s.revision = 0 AND s.paused_at IS NULL) THEN
        RETURN 0;
    END IF;
    RETURN turnwise.micros(least(
        (SELECT min(s.next_at) FROM turnwise.schedules s WHERE s.next_at IS NOT NULL AND s.paused_at IS NULL),
        (SELECT min(b.look_at) FROM turnwise.batches b WHERE b.look_at IS NOT NULL)));
END $$;

-- Claims ----------------------------------------------------------------------------------------------

-- What few jobs say, as 0011 has it, with their batch and the status of the attempt before this one.
CREATE FUNCTION turnwise.particulars(
    p_policies jsonb, p_queue text, p_retry_wait_ms bigint, p_retry_wait_max_ms bigint, p_asynchronous boolean,
    p_heartbeat_ms bigint, p_schedule text, p_batch uuid, p_attempt integer, p_last_status integer
) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_policies IS NOT NULL OR p_retry_wait_ms IS NOT NULL OR p_retry_wait_max_ms IS NOT NULL
            OR p_asynchronous IS NOT NULL OR p_schedule IS NOT NULL OR p_batch IS NOT NULL
            OR p_attempt > 1 AND p_last_status IS NOT NULL
        THEN ARRAY[jsonb_strip_nulls(coalesce(p_policies -> p_queue, '{}') || jsonb_strip_nulls(jsonb_build_object(
            'retry_wait_ms', p_retry_wait_ms, 'retry_wait_max_ms', p_retry_wait_max_ms,
            'asynchronous', p_asynchronous::integer, 'heartbeat_ms', p_heartbeat_ms, 'schedule', p_schedule,
            'batch', p_batch, 'previous_status', CASE WHEN p_attempt > 1 THEN p_last_status END)))::text]
        END
$$;

-- These rows, which are held, run under this claim from now on.
CREATE FUNCTION turnwise.taken(p_node uuid, p_token bigint, p_at timestamptz, p_places tid[])
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
            j.retry_wait_ms, j.retry_wait_max_ms, j.asynchronous, j.heartbeat_ms, j.schedule, j.batch
    )
    SELECT t.id::text, p_token, t.queue, t.method, t.url, t.headers::text,
        CASE WHEN octet_length(t.body) <= 262144 THEN t.body END,
        coalesce(octet_length(t.body), 0)::bigint, t.attempt::bigint, t.max_attempts::bigint,
        t.hand_backs::bigint, t.deadline_ms, turnwise.micros(t.scheduled_at), t.priority::bigint,
        NULL::bigint, NULL::bigint,
        turnwise.particulars(policies, t.queue, t.retry_wait_ms, t.retry_wait_max_ms, t.asynchronous, t.heartbeat_ms,
            t.schedule, t.batch, t.attempt, t.last_status),
        NULL::smallint[], NULL::boolean
    FROM taken t
    ORDER BY t.scheduled_at - t.priority * interval '10 s', t.id;
END $$;

-- Claim as 0011 has it; which rows, is decided here.
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
    RETURN QUERY SELECT * FROM turnwise.taken(p_node, p_token, p_at, places);
END $$;

-- Claim as 0016 has it; which rows, is decided here.
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
    RETURN QUERY SELECT * FROM turnwise.taken(p_node, p_token, p_at, places);
END $$;

-- As 0011 has it.
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
                j.heartbeat_ms, j.schedule, j.batch, j.attempt, j.last_status),
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

-- For apps --------------------------------------------------------------------------------------------

-- Make a batch of these jobs, in the transaction of whoever calls it: its id. `jobs` is an array as turnwise.enqueue_many takes it,
-- `on_success` and `on_complete` are one such object. Unless it is sealed, it does not end before turnwise.batch_seal.
CREATE FUNCTION turnwise.batch(
    jobs jsonb DEFAULT '[]',
    on_success jsonb DEFAULT NULL,
    on_complete jsonb DEFAULT NULL,
    name text DEFAULT NULL,
    sealed boolean DEFAULT true
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    made CONSTANT uuid := turnwise.uuid7();
BEGIN
    INSERT INTO turnwise.batches (id, name) VALUES (made, batch.name);
    PERFORM turnwise.batch_add(made, batch.jobs);
    IF batch.on_success IS NOT NULL THEN
        PERFORM turnwise.enqueue_after(made, batch.on_success, true);
    END IF;
    IF batch.on_complete IS NOT NULL THEN
        PERFORM turnwise.enqueue_after(made, batch.on_complete, false);
    END IF;
    IF batch.sealed THEN
        PERFORM turnwise.batch_sealed(made);
    END IF;
    RETURN made;
END $$;

-- Add jobs to a batch that goes on: their ids. One whose unique key is held by another is not added.
CREATE FUNCTION turnwise.batch_add(batch uuid, jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    given jsonb;
    own uuid[];
    known uuid[];
    ids uuid[];
BEGIN
    PERFORM turnwise.batches_check(ARRAY[batch_add.batch], '{}');
    given := turnwise.with_ids(batch_add.jobs);
    own := ARRAY(SELECT (e.job ->> 'id')::uuid FROM jsonb_array_elements(given) WITH ORDINALITY e (job, place) ORDER BY e.place);
    known := ARRAY(SELECT j.id FROM turnwise.jobs j WHERE j.id = ANY (own));
    ids := ARRAY(SELECT turnwise.enqueue_many(given));
    UPDATE turnwise.jobs j SET batch = batch_add.batch
    FROM unnest(own, ids) g (id, got)
    WHERE j.id = g.id AND g.got = g.id AND g.id <> ALL (known);
    RETURN QUERY SELECT i.id FROM unnest(ids) WITH ORDINALITY i (id, place) ORDER BY i.place;
END $$;

-- Enqueue a job, an object as turnwise.enqueue_many takes it, that runs when a batch has ended: its id. With `on_success` it is cancelled
-- unless all jobs of the batch succeeded.
CREATE FUNCTION turnwise.enqueue_after(batch uuid, job jsonb, on_success boolean DEFAULT true) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    given jsonb;
    own uuid;
    got uuid;
    is_new boolean;
BEGIN
    PERFORM turnwise.batches_check('{}', ARRAY[enqueue_after.batch]);
    IF job ->> 'scheduled_at' IS NOT NULL THEN
        RAISE EXCEPTION 'a job that waits for a batch has a time'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave scheduled_at out: it runs when the batch has ended.';
    END IF;
    given := turnwise.with_ids(jsonb_build_array(job));
    own := (given -> 0 ->> 'id')::uuid;
    is_new := NOT EXISTS (SELECT FROM turnwise.jobs j WHERE j.id = own);
    SELECT e.id INTO got FROM turnwise.enqueue_many(given) e (id);
    IF is_new AND got = own THEN
        PERFORM turnwise.job_waits(own, enqueue_after.batch, enqueue_after.on_success);
    END IF;
    RETURN got;
END $$;

-- These jobs, each with an id; what is wrong with them turnwise.enqueue_many says.
CREATE FUNCTION turnwise.with_ids(jobs jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(jobs) IS DISTINCT FROM 'array'
        OR EXISTS (SELECT FROM jsonb_array_elements(jobs) e (job) WHERE jsonb_typeof(e.job) <> 'object') THEN
        PERFORM turnwise.enqueue_many(jobs);
    END IF;
    RETURN coalesce((
        SELECT jsonb_agg(
            CASE WHEN e.job ->> 'id' IS NOT NULL THEN e.job
                ELSE e.job || jsonb_build_object('id', turnwise.uuid7()) END
            ORDER BY e.place)
        FROM jsonb_array_elements(jobs) WITH ORDINALITY e (job, place)), '[]');
END $$;

-- Nobody but its own jobs will add any more: the batch ends with the last of them. Once.
CREATE FUNCTION turnwise.batch_seal(batch uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before CONSTANT text := turnwise.batch_sealed(batch);
BEGIN
    IF before IS NULL THEN
        RAISE EXCEPTION 'there is no batch %', batch
            USING ERRCODE = 'TWB01', DETAIL = batch::text, HINT = 'Make one with turnwise.batch().';
    END IF;
    IF before <> 'open' THEN
        RAISE EXCEPTION 'the batch % cannot be sealed: it is % already', batch, before
            USING ERRCODE = 'TWB02', DETAIL = format('%s %s', batch, before);
    END IF;
END $$;
