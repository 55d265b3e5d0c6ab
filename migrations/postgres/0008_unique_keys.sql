-- least-binary: 0.1.0
--
-- At most one job holds a unique key: from when it is enqueued until it has ended and its window has passed, whichever
-- comes later. To enqueue another with the same key meanwhile is to be told the id of the one that is there.
--
-- Nothing is written when a key becomes free: whoever enqueues with it next takes it away from the job that had it. So ends
-- and rescues know nothing of keys.

ALTER TABLE turnwise.jobs
    ADD COLUMN unique_key text,
    -- The end of the window; null: there is none, and the key is free when the job has ended.
    ADD COLUMN unique_until timestamptz,
    -- Of rows to come: those that are there have no key.
    ADD CONSTRAINT unique_key_has_1_to_256_bytes
        CHECK (unique_key IS NULL OR octet_length(unique_key) BETWEEN 1 AND 256) NOT VALID;
CREATE UNIQUE INDEX jobs_unique_key ON turnwise.jobs (unique_key) WHERE unique_key IS NOT NULL;

-- The end of a window that begins at `moment`; null when there is none.
CREATE FUNCTION turnwise.checked_unique_until(
    unique_key text, unique_for interval, moment timestamptz
) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF unique_key = '' THEN
        RAISE EXCEPTION 'unique_key is empty'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out, or give a text of up to 256 bytes.';
    END IF;
    IF unique_for IS NULL THEN
        RETURN NULL;
    END IF;
    IF unique_key IS NULL THEN
        RAISE EXCEPTION 'unique_for is given without unique_key'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the key that is to be unique for so long.';
    END IF;
    IF extract(epoch FROM unique_for) <= 0 OR extract(epoch FROM unique_for) > 31622400 THEN
        RAISE EXCEPTION 'unique_for is %', unique_for
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is a time above 0, up to 366 days.';
    END IF;
    -- In seconds: days of 24 hours, whatever the session's time zone does in between.
    RETURN moment + extract(epoch FROM unique_for) * interval '1 second';
END $$;

-- Enqueue a job that has a unique key: its id, or that of the job which holds the key. A job with the same id that is there
-- already stays as it is.
CREATE FUNCTION turnwise.enqueue_unique(
    p_id uuid, p_queue text, p_method text, p_url text, p_headers jsonb, p_body bytea, p_priority integer,
    p_scheduled_at timestamptz, p_moment timestamptz, p_max_attempts integer, p_deadline_ms bigint,
    p_unique_key text, p_unique_until timestamptz
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
            max_attempts, deadline_ms, unique_key, unique_until)
        VALUES (
            p_id, p_queue, p_method, p_url, p_headers, p_body, p_priority, p_scheduled_at, p_moment, p_moment,
            p_max_attempts, p_deadline_ms, p_unique_key, p_unique_until)
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

-- Many jobs, as the node and its commands enqueue them: the ids by place. Those with a key in the order of their keys, so
-- that two who enqueue the same keys wait for each other one way round.
CREATE FUNCTION turnwise.jobs_enqueue(
    p_ids uuid[], p_queues text[], p_methods text[], p_urls text[], p_headers jsonb[], p_bodies bytea[],
    p_priorities integer[], p_at bigint[], p_waits_us bigint[], p_max_attempts integer[],
    p_deadlines_ms bigint[], p_keys text[], p_windows_us bigint[]
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
        max_attempts, deadline_ms)
    SELECT n.id, n.queue, n.method, n.url, n.headers, n.body, n.priority,
        coalesce(turnwise.instant(n.at), moment + n.wait_us * interval '1 microsecond'), moment, moment,
        n.max_attempts, n.deadline_ms
    FROM unnest(p_ids, p_queues, p_methods, p_urls, p_headers, p_bodies, p_priorities, p_at, p_waits_us,
            p_max_attempts, p_deadlines_ms, p_keys)
        n (id, queue, method, url, headers, body, priority, at, wait_us, max_attempts, deadline_ms, key)
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
            moment + p_windows_us[place] * interval '1 microsecond');
    END LOOP;
    RETURN ids::text[];
END $$;

-- For apps: two more arguments. ---------------------------------------------------------------------------

DROP FUNCTION turnwise.enqueue(
    text, jsonb, bytea, text, timestamptz, integer, integer, interval, text, jsonb, uuid);

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
    unique_for interval DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job CONSTANT uuid := coalesce(enqueue.id, turnwise.uuid7());
    moment CONSTANT timestamptz := turnwise.clock();
    until CONSTANT timestamptz := turnwise.checked_unique_until(enqueue.unique_key, enqueue.unique_for, moment);
BEGIN
    IF enqueue.unique_key IS NOT NULL THEN
        RETURN turnwise.enqueue_unique(
            job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'),
            turnwise.checked_url(enqueue.url), turnwise.checked_headers(enqueue.headers),
            turnwise.checked_body(enqueue.json, enqueue.body), coalesce(enqueue.priority, 0),
            coalesce(enqueue.scheduled_at, moment), moment, coalesce(enqueue.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(enqueue.deadline), 600000), enqueue.unique_key, until);
    END IF;
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms)
    VALUES (
        job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'),
        turnwise.checked_url(enqueue.url), turnwise.checked_headers(enqueue.headers),
        turnwise.checked_body(enqueue.json, enqueue.body), coalesce(enqueue.priority, 0),
        coalesce(enqueue.scheduled_at, moment), moment, moment, coalesce(enqueue.max_attempts, 20),
        coalesce(turnwise.checked_deadline_ms(enqueue.deadline), 600000))
    ON CONFLICT (id) DO NOTHING;
    RETURN job;
END $$;

-- Those that an array describes, without saying which of them is wrong: in one statement, but for those with a unique key,
-- which come after the others and in the order of their keys.
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
            turnwise.checked_unique_until(g.unique_key, g.unique_for, moment), e.place
        FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid,
            unique_key text, unique_for interval)
    ), enqueued AS (
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms)
        SELECT g.id, coalesce(g.queue, 'default'), coalesce(g.method, 'POST'),
            turnwise.checked_url(g.url), turnwise.checked_headers(g.headers),
            turnwise.checked_body(g.json, convert_to(g.body, 'UTF8')), coalesce(g.priority, 0),
            coalesce(g.scheduled_at, moment), moment, moment, coalesce(g.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(g.deadline), 600000)
        FROM given g WHERE g.unique_key IS NULL ORDER BY g.place
        ON CONFLICT (id) DO NOTHING
    )
    SELECT array_agg(g.id ORDER BY g.place) INTO ids FROM given g;
    FOR keyed IN
        SELECT g.*, e.place FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid,
            unique_key text, unique_for interval)
        WHERE g.unique_key IS NOT NULL ORDER BY g.unique_key, e.place
    LOOP
        ids[keyed.place] := turnwise.enqueue(
            keyed.url, keyed.json, convert_to(keyed.body, 'UTF8'), keyed.queue, keyed.scheduled_at,
            keyed.priority, keyed.max_attempts, keyed.deadline, keyed.method, keyed.headers, keyed.id,
            keyed.unique_key, keyed.unique_for);
    END LOOP;
    RETURN QUERY SELECT i.id FROM unnest(ids) WITH ORDINALITY i (id, place) ORDER BY i.place;
END $$;

-- A JSON array of objects whose fields are the arguments of `turnwise.enqueue` (but for `body`, which is text here); their
-- ids, in the array's order. All of them or none. Of two with one id, or one unique key,
-- the first counts, those without a key before those with one.
CREATE OR REPLACE FUNCTION turnwise.enqueue_many(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    known CONSTANT text[] := ARRAY['url', 'json', 'body', 'queue', 'scheduled_at', 'priority',
        'max_attempts', 'deadline', 'method', 'headers', 'id',
        'unique_key', 'unique_for'];
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
