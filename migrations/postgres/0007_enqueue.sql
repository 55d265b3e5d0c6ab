-- least-binary: 0.1.0
--
-- For apps: a job by a function call, in the app's own transaction, with arguments that are named and a complaint
-- that names what is wrong before anything is enqueued. Apart from the complaints a plain INSERT into turnwise.jobs does
-- the same. An argument that is left out, or null, means what the table's own default does.
--
-- A later version may add arguments: it drops these functions and makes them anew, in one transaction.

-- What the arguments become, or why they cannot be a job's ----------------------------------------------

CREATE FUNCTION turnwise.checked_url(url text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF coalesce(url, '') = '' THEN
        RAISE EXCEPTION 'url is %', CASE WHEN url IS NULL THEN 'null' ELSE 'empty' END
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give a path of the target, as in /jobs/tidy?id=7.';
    END IF;
    RETURN url;
END $$;

-- The bytes of the one that is given; a JSON null is none.
CREATE FUNCTION turnwise.checked_body(json jsonb, body bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    text_of_json CONSTANT bytea := convert_to(nullif(json, 'null')::text, 'UTF8');
BEGIN
    IF text_of_json IS NOT NULL AND body IS NOT NULL THEN
        RAISE EXCEPTION 'both json and body are given'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A job has one body: leave one of them out.';
    END IF;
    body := coalesce(body, text_of_json);
    IF octet_length(body) > 262144 THEN
        RAISE EXCEPTION 'the body has % bytes', octet_length(body)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'It may have up to 262144 (256 KiB): store what is longer, and enqueue where it is.';
    END IF;
    RETURN body;
END $$;

CREATE FUNCTION turnwise.checked_headers(headers jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    wrong text;
BEGIN
    IF nullif(headers, 'null') IS NULL THEN
        RETURN NULL;
    END IF;
    wrong := CASE
        WHEN jsonb_typeof(headers) <> 'object' THEN format('headers are of the type %s', jsonb_typeof(headers))
        ELSE (SELECT format('the header "%s" is of the type %s', h.key, jsonb_typeof(h.value))
            FROM jsonb_each(headers) h WHERE jsonb_typeof(h.value) <> 'string' ORDER BY h.key LIMIT 1)
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give an object of strings, as in {"x-tenant": "42"}.';
    END IF;
    RETURN headers;
END $$;

-- In whole milliseconds, begun ones included.
CREATE FUNCTION turnwise.checked_deadline_ms(deadline interval) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    ms CONSTANT numeric := ceil(extract(epoch FROM deadline) * 1000);
BEGIN
    IF ms NOT BETWEEN 1 AND 86400000 THEN
        RAISE EXCEPTION 'the deadline is %', deadline
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is a time above 0, up to 24 hours.';
    END IF;
    RETURN ms;
END $$;

-- One job -----------------------------------------------------------------------------------------------

-- Its id. A job with that id that is there already stays as it is. `json` is the body as JSON, with its spaces and the order of
-- its keys as PostgreSQL writes them; `body` is a body of any bytes.
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
    id uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job CONSTANT uuid := coalesce(enqueue.id, turnwise.uuid7());
    moment CONSTANT timestamptz := turnwise.clock();
BEGIN
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

-- Many jobs ---------------------------------------------------------------------------------------------

-- Those that an array describes, in one statement, without saying which of them is wrong.
CREATE FUNCTION turnwise.enqueue_array(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment CONSTANT timestamptz := turnwise.clock();
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT coalesce(g.id, turnwise.uuid7()) AS id, g.url, g.json, g.body, g.queue, g.scheduled_at,
            g.priority, g.max_attempts, g.deadline, g.method, g.headers, e.place
        FROM jsonb_array_elements(enqueue_array.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid)
    ), enqueued AS (
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms)
        SELECT g.id, coalesce(g.queue, 'default'), coalesce(g.method, 'POST'),
            turnwise.checked_url(g.url), turnwise.checked_headers(g.headers),
            turnwise.checked_body(g.json, convert_to(g.body, 'UTF8')), coalesce(g.priority, 0),
            coalesce(g.scheduled_at, moment), moment, moment, coalesce(g.max_attempts, 20),
            coalesce(turnwise.checked_deadline_ms(g.deadline), 600000)
        FROM given g ORDER BY g.place
        ON CONFLICT (id) DO NOTHING
    )
    SELECT g.id FROM given g ORDER BY g.place;
END $$;

-- A JSON array of objects whose fields are the arguments of `turnwise.enqueue` (but for `body`, which is text here); their
-- ids, in the array's order. All of them or none. Of two with one id the first counts.
CREATE FUNCTION turnwise.enqueue_many(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    known CONSTANT text[] := ARRAY['url', 'json', 'body', 'queue', 'scheduled_at', 'priority',
        'max_attempts', 'deadline', 'method', 'headers', 'id'];
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
