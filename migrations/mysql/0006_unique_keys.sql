-- least-binary: 0.1.0
--
-- At most one job holds a unique key: from when it is enqueued until it has ended and its window has passed, whichever
-- comes later. To enqueue another with the same key meanwhile is to be told the id of the one that is there. A key is compared
-- byte by byte: no collation of both servers does that without passing over spaces at its end.
--
-- Nothing is written when a key becomes free: whoever enqueues with it next takes it away from the job that had it. So ends
-- and rescues know nothing of keys. The end of the window is NULL when there is none.
--
-- The index of those that were given up goes while columns are added and is made again (see 0005). Each step asks first
-- whether it has been done, since a change of the schema commits by itself there.

SET @turnwise_has = (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND COLUMN_NAME = 'unique_key');
SET @turnwise_indexed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_given_up');
SET @turnwise_keyed = (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
    AND TABLE_NAME = 'turnwise_jobs' AND INDEX_NAME = 'turnwise_jobs_unique_key');
SET @turnwise_step = IF(@turnwise_has = 0 AND @turnwise_indexed > 0,
    'ALTER TABLE turnwise_jobs DROP INDEX turnwise_jobs_given_up', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_has = 0,
    'ALTER TABLE turnwise_jobs ADD COLUMN unique_key VARBINARY(256), ADD COLUMN unique_until DATETIME(6)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_keyed = 0,
    'ALTER TABLE turnwise_jobs ADD UNIQUE INDEX turnwise_jobs_unique_key (unique_key)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
SET @turnwise_step = IF(@turnwise_has = 0 OR @turnwise_indexed = 0,
    'ALTER TABLE turnwise_jobs ADD INDEX turnwise_jobs_given_up (given_up, id)', 'DO 0');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
