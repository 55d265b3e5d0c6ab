-- least-binary: 0.1.0
--
-- How a job is tried again, and jobs that go on after their call was answered.
--
-- A job that is marked asynchronous and answers 202 goes on elsewhere until its callback. It stands as queued until then, with
-- `awaits_since` set and `scheduled_at` at the time by which it must be heard of: when nothing comes, it is simply due, and the
-- next attempt begins. `node`, `token`, `attempt` and `started_at` still name the attempt that goes on, and the row of that
-- attempt says what is true if nothing is heard any more. A binary that does not know the columns runs such a job again when it
-- is due, and leaves `awaits_since` in the row: it means nothing there once another claim stands beside it.
--
-- Jobs that go on elsewhere are found as those that were given up are (0003): the computed column has a word for them too. Its
-- two indexes go while columns are added and are made again (see 0005). What the columns may hold is checked where they are read,
-- since a new check would have the table written anew. Each step asks first whether it has been done, since a change of the
-- schema commits by itself there.

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'awaits_since');
SET @turnwise_indexed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_given_up');
SET @turnwise_by_end = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_ended');
SET @turnwise_computed = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'given_up');
SET @turnwise_knows = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'given_up' AND GENERATION_EXPRESSION LIKE '%elsewhere%');
SET @turnwise_step = IF(@turnwise_knows = 0 AND @turnwise_indexed > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_given_up', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0 AND @turnwise_by_end > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_ended', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0 AND @turnwise_computed > 0,
    'ALTER TABLE turnwise_jobs DROP COLUMN given_up', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN retry_wait_ms BIGINT, ADD COLUMN retry_wait_max_ms BIGINT,
        ADD COLUMN asynchronous TINYINT, ADD COLUMN heartbeat_ms BIGINT, ADD COLUMN awaits_since DATETIME(6),
        ADD COLUMN progress SMALLINT, ADD COLUMN progress_note TEXT, ADD COLUMN schedule VARCHAR(255)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN given_up VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
        AS (CASE WHEN state IN (''dead'', ''cancelled'') THEN state
            WHEN state = ''queued'' AND awaits_since IS NOT NULL THEN ''elsewhere'' END) VIRTUAL', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0 OR @turnwise_indexed = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_given_up (given_up, id)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0 OR @turnwise_by_end = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_ended (given_up, finished_at)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;

-- What a schedule's jobs say.
SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_schedules' AND COLUMN_NAME = 'heartbeat_ms');
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_schedules ADD COLUMN retry_wait_ms BIGINT, ADD COLUMN retry_wait_max_ms BIGINT,
        ADD COLUMN asynchronous TINYINT, ADD COLUMN heartbeat_ms BIGINT', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;

-- What a queue says of its jobs that they do not say themselves. `permanent_statuses`: statuses after which a job is not tried
-- again, as in '400,404,422'.
SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_queues' AND COLUMN_NAME = 'permanent_statuses');
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_queues ADD COLUMN retry_wait_ms BIGINT, ADD COLUMN retry_wait_max_ms BIGINT,
        ADD COLUMN permanent_statuses VARCHAR(256)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;

-- What the nodes of this database share and nobody else is to know: by `callback` they know a callback's URL again. Whoever
-- may only read should not read this.
CREATE TABLE IF NOT EXISTS turnwise_secrets (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
