-- least-binary: 0.1.0
--
-- Batches as 0017 has them; but whoever holds a job that waits for a batch delays no look at another, and ended batches of which no job
-- is left are found.

-- Batches that ended long enough ago, the oldest first. One that goes on has no entry.
CREATE INDEX batches_ended ON turnwise.batches (state, ended_at) WHERE ended_at IS NOT NULL;

-- The jobs that still wait for a batch, or for its success, as turnwise.jobs_that_wait has them; but nobody who holds one of them is
-- waited for: that is an error, lock_not_available.
CREATE FUNCTION turnwise.jobs_that_wait_now(p_batch uuid, p_on_success_only boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT j.id FROM turnwise.waits w JOIN turnwise.jobs j ON j.id = w.job
        WHERE w.batch = p_batch AND (w.on_success OR NOT p_on_success_only)
            AND (j.state = 'queued' AND j.scheduled_at = turnwise.held_until()) IS TRUE
        ORDER BY j.id FOR NO KEY UPDATE OF j NOWAIT);
END $$;

-- Look at a batch whose row is held, as 0017 has it.
CREATE OR REPLACE FUNCTION turnwise.batch_settle(p_batch uuid, p_created_at timestamptz, OUT ended text, OUT again uuid[])
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
        jobs := turnwise.jobs_that_wait_now(p_batch, true);
        PERFORM turnwise.jobs_wait_in_vain(jobs, false);
        again := ARRAY(SELECT DISTINCT j.batch FROM turnwise.jobs j WHERE j.id = ANY (jobs) AND j.batch IS NOT NULL);
    END IF;
    jobs := turnwise.jobs_that_wait_now(p_batch, false);
    UPDATE turnwise.jobs j SET scheduled_at = moment, queued_at = moment WHERE j.id = ANY (jobs);
END $$;
