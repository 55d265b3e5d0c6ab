-- least-binary: 0.1.0
--
-- Schedules: cron entries that insert jobs. The nodes compute the times; here it is only compared and set. A row that is
-- inserted by plain SQL is looked at with the next beat: its first time is the first one after that. To change one, write its
-- revision back to 0, or leave it to `turnwise schedules set`.
--
-- Each time is fired once: whoever fires it inserts its row into `firings` and its job in one transaction.

CREATE TABLE turnwise.schedules (
    name text PRIMARY KEY
        CONSTRAINT name_has_1_to_128_bytes CHECK (octet_length(name) BETWEEN 1 AND 128),
    cron text NOT NULL CONSTRAINT cron_has_1_to_256_bytes CHECK (octet_length(cron) BETWEEN 1 AND 256),
    zone text NOT NULL DEFAULT 'UTC'
        CONSTRAINT zone_has_1_to_64_bytes CHECK (octet_length(zone) BETWEEN 1 AND 64),
    misfire text NOT NULL DEFAULT 'once'
        CONSTRAINT misfire_is_skip_once_or_all CHECK (misfire IN ('skip', 'once', 'all')),
    misfire_limit integer NOT NULL DEFAULT 100
        CONSTRAINT misfire_limit_is_1_to_1000 CHECK (misfire_limit BETWEEN 1 AND 1000),
    -- The job, as in turnwise.jobs.
    queue text NOT NULL DEFAULT 'default'
        CONSTRAINT queue_has_at_most_128_bytes CHECK (octet_length(queue) <= 128),
    method text NOT NULL DEFAULT 'POST'
        CONSTRAINT method_has_at_most_32_bytes CHECK (octet_length(method) <= 32),
    url text NOT NULL CONSTRAINT url_has_at_most_8_kib CHECK (octet_length(url) <= 8192),
    headers jsonb CONSTRAINT headers_have_at_most_32_kib CHECK (octet_length(headers::text) <= 32768),
    body bytea,
    priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    max_attempts integer NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    deadline_ms bigint NOT NULL DEFAULT 600000 CHECK (deadline_ms >= 1),
    created_at timestamptz NOT NULL DEFAULT turnwise.clock(),
    -- Since when nothing is fired; null: it is not paused.
    paused_at timestamptz,
    -- Counts the changes of the row; 0: no node has looked at it yet.
    revision bigint NOT NULL DEFAULT 0,
    -- The first time that has not been fired; null: there is none. Times are fired a little ahead.
    next_at timestamptz DEFAULT '1970-01-01 00:00:00+00',
    last_at timestamptz,
    -- How many times were passed over, since nobody looked when they came.
    skipped bigint NOT NULL DEFAULT 0,
    -- Why nothing is fired, when the row says what cannot be.
    error text
);
CREATE INDEX schedules_next ON turnwise.schedules (next_at) WHERE next_at IS NOT NULL AND paused_at IS NULL;
CREATE INDEX schedules_new ON turnwise.schedules (name) WHERE revision = 0;

CREATE TABLE turnwise.firings (
    schedule text NOT NULL,
    at timestamptz NOT NULL,
    job uuid NOT NULL,
    PRIMARY KEY (schedule, at)
);

SELECT turnwise.granted_as_jobs('turnwise.schedules');
SELECT turnwise.granted_as_jobs('turnwise.firings');

-- The earliest time that is to be fired, in microseconds; null: there is none. A row that no node has looked at is due.
CREATE FUNCTION turnwise.next_schedule() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM turnwise.schedules s WHERE s.revision = 0 AND s.paused_at IS NULL) THEN
        RETURN 0;
    END IF;
    RETURN turnwise.micros((
        SELECT min(s.next_at) FROM turnwise.schedules s
        WHERE s.next_at IS NOT NULL AND s.paused_at IS NULL));
END $$;

-- Fire these times of a schedule, unless somebody has changed it since it was looked at, or paused it (`p_forced` fires a paused
-- one too: somebody wants it now); whether it was done. `p_next` is the first time after them.
CREATE FUNCTION turnwise.schedule_fire(
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
        max_attempts, deadline_ms)
    SELECT f.job, s.queue, s.method, s.url, s.headers, s.body, s.priority, f.at, moment, moment,
        s.max_attempts, s.deadline_ms
    FROM fired f
    ON CONFLICT (id) DO NOTHING;
    -- What was fired long ago is not computed again.
    DELETE FROM turnwise.firings f WHERE f.schedule = p_name AND f.at < moment - interval '7 days';
    RETURN true;
END $$;
