-- least-binary: 0.1.0
--
-- How many jobs of a queue run at once, and how many are claimed in a time, on all nodes together. A binary that does not know the
-- columns claims without a limit. What they may hold is bounded where they are read too.

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_queues' AND COLUMN_NAME = 'rate_full_at');
-- So many jobs in so many milliseconds; so many of them at once after a time without any (NULL: as many as rate_jobs); when all
-- of those may be claimed again (NULL: now).
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_queues ADD COLUMN concurrency BIGINT, ADD COLUMN rate_jobs BIGINT,
        ADD COLUMN rate_per_ms BIGINT, ADD COLUMN rate_burst BIGINT, ADD COLUMN rate_full_at DATETIME(6),
        ADD CONSTRAINT concurrency_is_1_to_a_million CHECK (concurrency BETWEEN 1 AND 1000000),
        ADD CONSTRAINT rate_jobs_is_1_to_a_million CHECK (rate_jobs BETWEEN 1 AND 1000000),
        ADD CONSTRAINT rate_per_is_1_ms_to_24_h CHECK (rate_per_ms BETWEEN 1 AND 86400000),
        ADD CONSTRAINT rate_burst_is_1_to_a_million CHECK (rate_burst BETWEEN 1 AND 1000000)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
