-- least-binary: 0.1.0
--
-- What people order of queues. A queue without a row here is as any other: it is not paused. A binary that does not know the
-- table claims from paused queues too.

CREATE TABLE turnwise_queues (
    name TEXT PRIMARY KEY NOT NULL
        CONSTRAINT name_has_at_most_128_bytes CHECK (length(CAST(name AS BLOB)) <= 128),
    -- Since when no job of it is claimed; NULL: it is not paused.
    paused_at INTEGER
) STRICT, WITHOUT ROWID;
