-- least-binary: 0.1.0
--
-- Ended batches of which no job is left are found when they are old enough: by how they ended and when, the oldest first.
--
-- It asks first whether it has been done, since a change of the schema commits by itself there.

SET @turnwise_step = IF(
    (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()
        AND TABLE_NAME = 'turnwise_batches' AND INDEX_NAME = 'turnwise_batches_ended') > 0,
    'DO 0',
    'ALTER TABLE turnwise_batches ADD INDEX turnwise_batches_ended (state, ended_at)');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
