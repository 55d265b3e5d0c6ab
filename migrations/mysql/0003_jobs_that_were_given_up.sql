-- least-binary: 0.1.0
--
-- Jobs that were given up or cancelled are few among many and are looked for by people, newest first. PostgreSQL and
-- SQLite have partial indexes for them; neither server here has any, so that each job that is enqueued has an entry.
-- What can be saved is touching it again. In an index of (state, id) the entry moves with each change of the state; this
-- one is of a column that is NULL until a job is given up, so that the entry of a job that succeeds is written once, at
-- the end of the index (ids grow), and then left alone. The column is computed, not stored.
--
-- Measured on MariaDB 10.11, 60,000 jobs in batches of 500, bytes of redo log a job, enqueued + claimed + succeeded:
-- without an index 354 + 1614 + 1636; with (state, id) 403 + 1728 + 1748; with this one 417 + 1626 + 1650.
--
-- It asks first whether it has been done, since a change of the schema commits by itself there.

SET @turnwise_step = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
        AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'given_up') > 0,
    'DO 0',
    'ALTER TABLE turnwise_jobs
        ADD COLUMN given_up VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
            AS (CASE WHEN state IN (''dead'', ''cancelled'') THEN state END) VIRTUAL,
        ADD INDEX turnwise_jobs_given_up (given_up, id)');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
