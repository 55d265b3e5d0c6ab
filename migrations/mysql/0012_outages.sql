-- least-binary: 0.1.0
--
-- An outage counts for no deadline of a job that goes on elsewhere. `awaits_until` is the end of it, where `started_at` and
-- `deadline_ms` alone do not say it; one that lies before that is of an earlier attempt, and means nothing. Of the turn row, `away_us`
-- is how long nobody beat between the beats of `away_from` and `away_until`: the last outage, with those that came less than a
-- minute before. A binary that does not know the columns puts off the time by which such a job is to be heard of, and no more.
--
-- A job goes on elsewhere only when it was accepted after it was claimed: a binary that does not know of it claims it and leaves
-- `awaits_since` as it was. The computed column learns it, in the steps of 0009. Each step asks first whether it has been done, since a
-- change of the schema commits by itself there.

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'awaits_until');
SET @turnwise_indexed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_given_up');
SET @turnwise_by_end = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_ended');
SET @turnwise_computed = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'given_up');
SET @turnwise_knows = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'given_up' AND GENERATION_EXPRESSION LIKE '%started_at%');
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
    'ALTER TABLE turnwise_jobs ADD COLUMN awaits_until DATETIME(6)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_knows = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN given_up VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
        AS (CASE WHEN state IN (''dead'', ''cancelled'') THEN state
            WHEN state = ''queued'' AND awaits_since >= started_at THEN ''elsewhere'' END) VIRTUAL', 'DO 0');
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

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_turn' AND COLUMN_NAME = 'away_us');
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_turn ADD COLUMN away_from DATETIME(6), ADD COLUMN away_until DATETIME(6),
        ADD COLUMN away_us BIGINT', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
