-- least-binary: 0.1.0
--
-- Batches: jobs that belong together, and jobs that wait until those have ended. Whether a batch has ended is read from the states
-- of its jobs, under the lock of its row: ends and rescues know nothing of batches. A job that waits for one stands as queued, put
-- off until 2260-01-01, with a row in `turnwise_waits`. A binary that does not know of batches runs their jobs, and no batch ends.
--
-- Of a job that belongs to no batch, no entry of the index changes with its state: both its columns are NULL then, since the second
-- is computed, and NULL where there is no batch.
--
-- The two indexes of the column that says what was given up go while columns are added and are made again (see 0005). The computed
-- column is added by itself: with one that is stored the table would be written anew. Each step asks first whether it has been done,
-- since a change of the schema commits by itself there.

CREATE TABLE IF NOT EXISTS turnwise_batches (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    name VARCHAR(256),
    state VARCHAR(16) NOT NULL DEFAULT 'open',
    created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    ended_at DATETIME(6),
    -- When one that is sealed is to be looked at; NULL: not.
    look_at DATETIME(6),
    -- How many of its jobs had ended how when it ended.
    succeeded BIGINT,
    dead BIGINT,
    cancelled BIGINT,
    INDEX turnwise_batches_look (look_at),
    CONSTRAINT batch_id_is_a_uuid_in_lower_case CHECK (CHAR_LENGTH(id) = 36
        AND id REGEXP '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    CONSTRAINT batch_name_has_at_most_256_bytes CHECK (OCTET_LENGTH(name) <= 256),
    CONSTRAINT batch_state_is_one_of_five CHECK (state IN ('open', 'sealed', 'succeeded', 'failed', 'cancelled'))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which job waits for which batch, or did; not zero: all its jobs must succeed.
CREATE TABLE IF NOT EXISTS turnwise_waits (
    job VARCHAR(36) NOT NULL PRIMARY KEY,
    batch VARCHAR(36) NOT NULL,
    on_success TINYINT NOT NULL,
    INDEX turnwise_waits_batch (batch, job)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'batch');
SET @turnwise_computed = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'batch_state');
SET @turnwise_indexed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_given_up');
SET @turnwise_by_end = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_ended');
SET @turnwise_by_batch = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_batch');
SET @turnwise_step = IF(@turnwise_computed = 0 AND @turnwise_indexed > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_given_up', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0 AND @turnwise_by_end > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_ended', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN batch VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_computed = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN batch_state VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
        AS (CASE WHEN batch IS NOT NULL THEN state END) VIRTUAL', 'DO 0');
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
SET @turnwise_step = IF(@turnwise_by_batch = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_batch (batch, batch_state)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
