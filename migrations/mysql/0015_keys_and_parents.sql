-- least-binary: 0.1.0
--
-- Concurrency keys: of the jobs of a queue that have the same one, no more run at once than the queue says. And queues that are held
-- back for a while since a target asks for it. A binary that does not know the columns claims all the same. And which job has
-- enqueued a job.
--
-- The key that counts while a job waits is computed: of a job without one, the entry of the index does not change with its state. The three
-- indexes of other computed columns go while columns are added and are made again (see 0005 and 0014). Each step asks first whether
-- it has been done, since a change of the schema commits by itself there.

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_queues' AND COLUMN_NAME = 'slowed_until');
-- So many jobs with the same concurrency key run at once (NULL: any number); for so long the queue is held back at most when a target
-- answers 429 or 503 with Retry-After (NULL: it is not); until when it is held back; behind which key the first jobs of keys are
-- looked for next, where very many wait (NULL: from the first).
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_queues ADD COLUMN concurrency_per_key BIGINT, ADD COLUMN slow_down_ms BIGINT,
        ADD COLUMN slowed_until DATETIME(6), ADD COLUMN keys_from VARBINARY(256),
        ADD CONSTRAINT concurrency_per_key_is_1_to_a_million CHECK (concurrency_per_key BETWEEN 1 AND 1000000),
        ADD CONSTRAINT slow_down_is_1_s_to_24_h CHECK (slow_down_ms BETWEEN 1000 AND 86400000)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_schedules' AND COLUMN_NAME = 'concurrency_key');
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_schedules ADD COLUMN concurrency_key VARBINARY(256),
        ADD CONSTRAINT schedule_concurrency_key_is_not_empty CHECK (OCTET_LENGTH(concurrency_key) > 0)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'concurrency_key');
SET @turnwise_computed = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'queued_key');
SET @turnwise_indexed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_given_up');
SET @turnwise_by_end = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_ended');
SET @turnwise_by_batch = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_batch');
SET @turnwise_by_key = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_keyed');
SET @turnwise_step = IF(@turnwise_computed = 0 AND @turnwise_indexed > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_given_up', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 AND @turnwise_by_end > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_ended', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 AND @turnwise_by_batch > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_batch', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
-- What it may hold is bounded by its type, and an empty one counts as a key.
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN concurrency_key VARBINARY(256)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'parent');
-- The job that has enqueued it.
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN parent VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN queued_key VARBINARY(256)
        AS (CASE WHEN state = ''queued'' THEN concurrency_key END) VIRTUAL', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 OR @turnwise_indexed = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_given_up (given_up, id)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 OR @turnwise_by_end = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_ended (given_up, finished_at)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 OR @turnwise_by_batch = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_batch (batch, batch_state)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_by_key = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_keyed (queue, priority, queued_key, scheduled_at)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
