-- least-binary: 0.1.0
--
-- What a person asks of a node, and what a node says of its web apps. A binary that knows neither column leaves them
-- alone: it does not hear that it is asked to drain.
--
-- `drain_asked_at`: when somebody asked the node to leave the ring, finish what it runs and exit; by the server's clock,
-- in UTC. A node that comes back has another row. `targets`: a JSON list of {"origin", "answers", "since"}, at most
-- 4 KiB of it. Written when it changes, never by a beat.
--
-- A change of the schema commits by itself there, and this one may be done again after a break: it asks first whether it
-- has been done. (MySQL has no ADD COLUMN IF NOT EXISTS.) One ALTER TABLE is done whole or not at all.

SET @turnwise_step = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
        AND TABLE_NAME = 'turnwise_nodes' AND COLUMN_NAME = 'targets') > 0,
    'DO 0',
    'ALTER TABLE turnwise_nodes ADD COLUMN drain_asked_at DATETIME(6), ADD COLUMN targets TEXT');
PREPARE turnwise_step FROM @turnwise_step;
EXECUTE turnwise_step;
DEALLOCATE PREPARE turnwise_step;
