-- least-binary: 0.1.0
--
-- How a job is tried again, and jobs that go on after their call was answered.
--
-- A job that is marked asynchronous and answers 202 goes on elsewhere until its callback. It stands as queued until then, with
-- `awaits_since` set and `scheduled_at` at the time by which it must be heard of: when nothing comes, it is simply due, and the
-- next attempt begins. `node`, `token`, `attempt` and `started_at` still name the attempt that goes on, and the row of that
-- attempt says what is true if nothing is heard any more. A binary that does not know the columns runs such a job again when it
-- is due, and leaves `awaits_since` in the row: it means nothing there once another claim stands beside it.

ALTER TABLE turnwise_jobs ADD COLUMN retry_wait_ms INTEGER
    CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000);
ALTER TABLE turnwise_jobs ADD COLUMN retry_wait_max_ms INTEGER
    CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000);
ALTER TABLE turnwise_jobs ADD COLUMN asynchronous INTEGER
    CONSTRAINT asynchronous_is_0_or_1 CHECK (asynchronous IN (0, 1));
ALTER TABLE turnwise_jobs ADD COLUMN heartbeat_ms INTEGER
    CONSTRAINT heartbeat_is_1_s_to_24_h CHECK (heartbeat_ms BETWEEN 1000 AND 86400000);
ALTER TABLE turnwise_jobs ADD COLUMN awaits_since INTEGER;
ALTER TABLE turnwise_jobs ADD COLUMN progress INTEGER
    CONSTRAINT progress_is_0_to_100 CHECK (progress BETWEEN 0 AND 100);
ALTER TABLE turnwise_jobs ADD COLUMN progress_note TEXT
    CONSTRAINT progress_note_has_at_most_1_kib CHECK (length(CAST(progress_note AS BLOB)) <= 1024);
-- The schedule that has inserted it.
ALTER TABLE turnwise_jobs ADD COLUMN schedule TEXT
    CONSTRAINT schedule_has_at_most_128_bytes CHECK (length(CAST(schedule AS BLOB)) <= 128);
CREATE INDEX turnwise_jobs_awaiting ON turnwise_jobs (id) WHERE awaits_since IS NOT NULL;

-- What a schedule's jobs say.
ALTER TABLE turnwise_schedules ADD COLUMN retry_wait_ms INTEGER
    CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000);
ALTER TABLE turnwise_schedules ADD COLUMN retry_wait_max_ms INTEGER
    CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000);
ALTER TABLE turnwise_schedules ADD COLUMN asynchronous INTEGER
    CONSTRAINT asynchronous_is_0_or_1 CHECK (asynchronous IN (0, 1));
ALTER TABLE turnwise_schedules ADD COLUMN heartbeat_ms INTEGER
    CONSTRAINT heartbeat_is_1_s_to_24_h CHECK (heartbeat_ms BETWEEN 1000 AND 86400000);

-- What a queue says of its jobs that they do not say themselves.
ALTER TABLE turnwise_queues ADD COLUMN retry_wait_ms INTEGER
    CONSTRAINT retry_wait_is_1_ms_to_24_h CHECK (retry_wait_ms BETWEEN 1 AND 86400000);
ALTER TABLE turnwise_queues ADD COLUMN retry_wait_max_ms INTEGER
    CONSTRAINT retry_wait_max_is_1_ms_to_24_h CHECK (retry_wait_max_ms BETWEEN 1 AND 86400000);
-- Statuses after which a job is not tried again, as in '400,404,422'.
ALTER TABLE turnwise_queues ADD COLUMN permanent_statuses TEXT
    CONSTRAINT permanent_statuses_have_at_most_256_bytes CHECK (length(CAST(permanent_statuses AS BLOB)) <= 256);

-- What the nodes of this database share and nobody else is to know: by `callback` they know a callback's URL again. Whoever
-- may only read should not read this.
CREATE TABLE turnwise_secrets (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
