-- least-binary: 0.1.0
--
-- An outage counts for no deadline of a job that goes on elsewhere. `awaits_until` is the end of it, where `started_at` and
-- `deadline_ms` alone do not say it; one that lies before that is of an earlier attempt, and means nothing. Of the turn row, `away_us`
-- is how long nobody beat between the beats of `away_from` and `away_until`: the last outage, with those that came less than a
-- minute before.

ALTER TABLE turnwise.jobs ADD COLUMN awaits_until timestamptz;
ALTER TABLE turnwise.turn
    ADD COLUMN away_from timestamptz, ADD COLUMN away_until timestamptz, ADD COLUMN away_us bigint;

-- How much of the time from `p_from` to `p_at` nobody beat, in microseconds; without `p_over` only of an outage that the next accepted
-- beat will find: those that wait are put off by it then.
CREATE FUNCTION turnwise.away(p_from timestamptz, p_at timestamptz, p_over boolean) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    t turnwise.turn;
    from_us CONSTANT bigint := turnwise.micros(p_from);
    at_us CONSTANT bigint := turnwise.micros(p_at);
    beaten_us bigint;
    away bigint := 0;
BEGIN
    SELECT r.* INTO t FROM turnwise.turn r WHERE r.id = 1;
    beaten_us := turnwise.micros(t.beaten_at);
    IF at_us - beaten_us > 2000 * coalesce(t.period_ms, 1000) THEN
        away := greatest(at_us - greatest(from_us, beaten_us), 0);
    END IF;
    IF p_over AND t.away_us IS NOT NULL THEN
        away := away + greatest(0, least(t.away_us,
            least(turnwise.micros(t.away_until), at_us) - greatest(turnwise.micros(t.away_from), from_us)));
    END IF;
    RETURN away;
END $$;

-- The end of an attempt's deadline, if nobody was away. An app may say any number of milliseconds: a century will do.
CREATE FUNCTION turnwise.deadline_of(p_started_at timestamptz, p_deadline_ms bigint) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN p_started_at + least(p_deadline_ms, 3155760000000) * interval '1 millisecond';
END $$;

-- As 0011 has it, and their deadlines too.
CREATE OR REPLACE FUNCTION turnwise.put_off(p_from timestamptz, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    places tid[];
    changed bigint;
BEGIN
    IF p_at <= p_from THEN
        RETURN 0;
    END IF;
    UPDATE turnwise.turn t SET
        away_us = turnwise.micros(p_at) - turnwise.micros(p_from)
            + CASE WHEN t.away_until BETWEEN p_from - interval '1 minute' AND p_from
                THEN coalesce(t.away_us, 0) ELSE 0 END,
        away_from = CASE WHEN t.away_until BETWEEN p_from - interval '1 minute' AND p_from
            THEN coalesce(t.away_from, p_from) ELSE p_from END,
        away_until = p_at
    WHERE t.id = 1;
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
        queued_at = p_at, scheduled_at = j.scheduled_at + (p_at - greatest(p_from, j.queued_at)),
        awaits_until = j.awaits_until + (p_at - greatest(p_from, j.awaits_since))
    WHERE j.ctid = ANY (places);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;

-- Record ends as `jobs_finish` does, some of which go on elsewhere ('await'): no outage since their attempts began counts for their
-- deadlines, and the end of a call may be brought a lease late without anybody's fault. `p_cancelled` is what the attempt of one says
-- that was cancelled meanwhile.
CREATE FUNCTION turnwise.jobs_finish_or_await(
    p_node uuid, p_jobs uuid[], p_tokens bigint[], p_fates text[], p_waits_us bigint[],
    p_statuses integer[], p_errors text[], p_answers bytea[], p_cancelled text,
    OUT outcomes integer[], OUT lost boolean
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    lease CONSTANT interval := turnwise.lease(turnwise.period_ms());
    one record;
BEGIN
    SELECT f.outcomes, f.lost INTO outcomes, lost
    FROM turnwise.jobs_finish(p_node, p_jobs, p_tokens, p_fates, p_waits_us, p_statuses, p_errors, p_answers) f;
    -- Those that were recorded now are locked.
    FOR one IN
        SELECT j.id, j.token, j.state, j.started_at, j.deadline_ms, j.awaits_since AS at,
            g.wait_us * interval '1 microsecond' AS wait
        FROM unnest(p_jobs, p_tokens, p_fates, p_waits_us, outcomes) g (job, token, fate, wait_us, outcome)
        JOIN turnwise.jobs j
            ON j.id = g.job AND (j.node = p_node AND j.token = g.token AND j.state IN ('queued', 'cancelled')) IS TRUE
        WHERE g.fate = 'await' AND g.outcome = 0
    LOOP
        IF one.state = 'queued' THEN
            UPDATE turnwise.jobs j SET awaits_until = e.last, scheduled_at = least(one.at + one.wait, e.last)
            FROM (SELECT greatest(
                turnwise.deadline_of(one.started_at, one.deadline_ms)
                    + turnwise.away(one.started_at, one.at, true) * interval '1 microsecond',
                one.at + least(one.wait, lease)) AS last) e
            WHERE j.id = one.id;
        ELSE
            UPDATE turnwise.jobs j SET last_error = p_cancelled WHERE j.id = one.id;
            UPDATE turnwise.attempts a SET error = p_cancelled
            WHERE a.job = one.id AND a.node = p_node AND a.token = one.token;
        END IF;
    END LOOP;
END $$;

-- As 0011 has it; what a beat has yet to put off is put off here already.
CREATE OR REPLACE FUNCTION turnwise.job_heard(
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
                    greatest(
                        greatest(turnwise.deadline_of(j.started_at, j.deadline_ms), j.awaits_until)
                            + turnwise.away(j.awaits_since, at, false) * interval '1 microsecond',
                        j.scheduled_at))
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

-- The lanes of those that go on elsewhere, at most so many, by their index: they are few among many, and no statistics know it.
CREATE FUNCTION turnwise.jobs_elsewhere(p_limit bigint)
RETURNS TABLE (queue text, priority smallint, scheduled_at timestamptz) LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY SELECT j.queue, j.priority, j.scheduled_at FROM turnwise.jobs j
        WHERE j.awaits_since IS NOT NULL AND (j.state = 'queued') IS TRUE LIMIT p_limit;
END $$;
