-- least-binary: 0.1.0
--
-- For apps: a job by a function call, in the app's own transaction, with arguments that are named and a complaint
-- that names what is wrong. A plain INSERT into turnwise.jobs does the same. What an argument that is left out, or null,
-- means stands in the table's own defaults.

-- One job; its id. A job with that id that is there already stays as it is. `json` is the body, as text; `body` is a body of
-- any bytes.
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
    job uuid := coalesce(enqueue.id, turnwise.uuid7());
    moment timestamptz := turnwise.clock();
    bytes bytea := coalesce(enqueue.body, convert_to(enqueue.json::text, 'UTF8'));
BEGIN
    IF enqueue.url IS NULL THEN
        RAISE EXCEPTION 'turnwise.enqueue: url is null'
            USING ERRCODE = 'null_value_not_allowed',
                HINT = 'Give a path of the target, as in turnwise.enqueue(''/jobs/tidy'').';
    END IF;
    IF enqueue.json IS NOT NULL AND enqueue.body IS NOT NULL THEN
        RAISE EXCEPTION 'turnwise.enqueue: both json and body are given'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A job has one body: leave one of them out.';
    END IF;
    IF octet_length(bytes) > 262144 THEN
        RAISE EXCEPTION 'turnwise.enqueue: a body of % bytes', octet_length(bytes)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'A body has up to 262144 bytes (256 KiB): store it, and enqueue where it is.';
    END IF;
    INSERT INTO turnwise.jobs (
        id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
        max_attempts, deadline_ms)
    VALUES (
        job, coalesce(enqueue.queue, 'default'), coalesce(enqueue.method, 'POST'), enqueue.url,
        enqueue.headers, bytes, coalesce(enqueue.priority, 0),
        coalesce(enqueue.scheduled_at, moment), moment, moment,
        coalesce(enqueue.max_attempts, 20),
        coalesce((extract(epoch FROM enqueue.deadline) * 1000)::bigint, 600000))
    ON CONFLICT (id) DO NOTHING;
    RETURN job;
END $$;

-- Many jobs, in one statement: a JSON array of objects whose fields are the arguments of `turnwise.enqueue` (but for
-- `body`, which is text here); their ids, in the array's order. All of them or none.
CREATE FUNCTION turnwise.enqueue_many(jobs jsonb) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known CONSTANT text[] := ARRAY['url', 'json', 'body', 'queue', 'scheduled_at', 'priority',
        'max_attempts', 'deadline', 'method', 'headers', 'id'];
    moment timestamptz := turnwise.clock();
    place bigint;
    wrong text;
    remedy text;
BEGIN
    IF jsonb_typeof(enqueue_many.jobs) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'turnwise.enqueue_many: % is given', coalesce(jsonb_typeof(enqueue_many.jobs), 'null')
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give an array of objects, as in ''[{"url": "/jobs/tidy"}]''.';
    END IF;
    SELECT e.place, 'it is no object', 'A job is an object, as in {"url": "/jobs/tidy"}.'
    INTO place, wrong, remedy
    FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
    WHERE jsonb_typeof(e.job) <> 'object' ORDER BY e.place LIMIT 1;
    IF place IS NULL THEN
        SELECT e.place, format('it has a field "%s"', k.name),
            format('The fields are %s.', array_to_string(known, ', '))
        INTO place, wrong, remedy
        FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_object_keys(e.job) k (name)
        WHERE k.name <> ALL (known) ORDER BY e.place LIMIT 1;
    END IF;
    IF place IS NULL THEN
        SELECT e.place, 'it has no url', 'Give a path of the target, as in {"url": "/jobs/tidy"}.'
        INTO place, wrong, remedy
        FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
        WHERE e.job ->> 'url' IS NULL ORDER BY e.place LIMIT 1;
    END IF;
    IF place IS NULL THEN
        SELECT e.place, 'it has both json and body', 'A job has one body: leave one of them out.'
        INTO place, wrong, remedy
        FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
        WHERE e.job ->> 'json' IS NOT NULL AND e.job ->> 'body' IS NOT NULL ORDER BY e.place LIMIT 1;
    END IF;
    IF place IS NULL THEN
        SELECT e.place, 'its body has more than 262144 bytes',
            'A body has up to 256 KiB: store it, and enqueue where it is.'
        INTO place, wrong, remedy
        FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
        WHERE octet_length(coalesce(e.job ->> 'body', e.job ->> 'json')) > 262144 ORDER BY e.place LIMIT 1;
    END IF;
    IF place IS NOT NULL THEN
        RAISE EXCEPTION 'turnwise.enqueue_many: job % of %: %', place, jsonb_array_length(enqueue_many.jobs), wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = remedy;
    END IF;
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT coalesce(g.id, turnwise.uuid7()) AS id, g.url, g.json, g.body, g.queue, g.scheduled_at,
            g.priority, g.max_attempts, g.deadline, g.method, g.headers, e.place
        FROM jsonb_array_elements(enqueue_many.jobs) WITH ORDINALITY e (job, place)
        CROSS JOIN LATERAL jsonb_to_record(e.job) AS g (
            url text, json jsonb, body text, queue text, scheduled_at timestamptz, priority integer,
            max_attempts integer, deadline interval, method text, headers jsonb, id uuid)
    ), enqueued AS (
        INSERT INTO turnwise.jobs (
            id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
            max_attempts, deadline_ms)
        SELECT g.id, coalesce(g.queue, 'default'), coalesce(g.method, 'POST'), g.url, g.headers,
            convert_to(coalesce(g.body, g.json::text), 'UTF8'), coalesce(g.priority, 0),
            coalesce(g.scheduled_at, moment), moment, moment, coalesce(g.max_attempts, 20),
            coalesce((extract(epoch FROM g.deadline) * 1000)::bigint, 600000)
        FROM given g ORDER BY g.place
        ON CONFLICT (id) DO NOTHING
    )
    SELECT g.id FROM given g ORDER BY g.place;
END $$;
