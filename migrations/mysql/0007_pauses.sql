-- least-binary: 0.1.0
--
-- What people order of queues. A queue without a row here is as any other: it is not paused. A binary that does not know the
-- table claims from paused queues too. The name is compared as that of a job's queue is.

CREATE TABLE IF NOT EXISTS turnwise_queues (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    -- Since when no job of it is claimed; NULL: it is not paused.
    paused_at DATETIME(6),
    CONSTRAINT name_has_at_most_128_bytes CHECK (OCTET_LENGTH(name) <= 128)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
