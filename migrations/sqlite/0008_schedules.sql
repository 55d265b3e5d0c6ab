-- least-binary: 0.1.0
--
-- Schedules: cron entries that insert jobs. The nodes compute the times; here it is only compared and set. A row that is
-- inserted by plain SQL is looked at with the next beat: its first time is the first one after that. To change one, write its
-- revision back to 0, or leave it to `turnwise schedules set`.
--
-- Each time is fired once: whoever fires it inserts its row into `firings` and its job in one transaction.

CREATE TABLE turnwise_schedules (
    name TEXT PRIMARY KEY NOT NULL
        CONSTRAINT name_has_1_to_128_bytes CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 128),
    cron TEXT NOT NULL
        CONSTRAINT cron_has_1_to_256_bytes CHECK (length(CAST(cron AS BLOB)) BETWEEN 1 AND 256),
    zone TEXT NOT NULL DEFAULT 'UTC'
        CONSTRAINT zone_has_1_to_64_bytes CHECK (length(CAST(zone AS BLOB)) BETWEEN 1 AND 64),
    misfire TEXT NOT NULL DEFAULT 'once'
        CONSTRAINT misfire_is_skip_once_or_all CHECK (misfire IN ('skip', 'once', 'all')),
    misfire_limit INTEGER NOT NULL DEFAULT 100
        CONSTRAINT misfire_limit_is_1_to_1000 CHECK (misfire_limit BETWEEN 1 AND 1000),
    -- The job, as in turnwise_jobs.
    queue TEXT NOT NULL DEFAULT 'default'
        CONSTRAINT queue_has_at_most_128_bytes CHECK (length(CAST(queue AS BLOB)) <= 128),
    method TEXT NOT NULL DEFAULT 'POST'
        CONSTRAINT method_has_at_most_32_bytes CHECK (length(CAST(method AS BLOB)) <= 32),
    url TEXT NOT NULL CONSTRAINT url_has_at_most_8_kib CHECK (length(CAST(url AS BLOB)) <= 8192),
    headers TEXT
        CONSTRAINT headers_have_at_most_32_kib CHECK (length(CAST(headers AS BLOB)) <= 32768),
    body ANY,
    priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    max_attempts INTEGER NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    deadline_ms INTEGER NOT NULL DEFAULT 600000 CHECK (deadline_ms >= 1),
    created_at INTEGER NOT NULL
        DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000),
    -- Since when nothing is fired; NULL: it is not paused.
    paused_at INTEGER,
    -- Counts the changes of the row; 0: no node has looked at it yet.
    revision INTEGER NOT NULL DEFAULT 0,
    -- The first time that has not been fired; NULL: there is none. Times are fired a little ahead.
    next_at INTEGER DEFAULT 0,
    last_at INTEGER,
    -- How many times were passed over, since nobody looked when they came.
    skipped INTEGER NOT NULL DEFAULT 0,
    -- Why nothing is fired, when the row says what cannot be.
    error TEXT
) STRICT;
CREATE INDEX turnwise_schedules_next ON turnwise_schedules (next_at)
    WHERE next_at IS NOT NULL AND paused_at IS NULL;
CREATE INDEX turnwise_schedules_new ON turnwise_schedules (name) WHERE revision = 0;

CREATE TABLE turnwise_firings (
    schedule TEXT NOT NULL,
    at INTEGER NOT NULL,
    job TEXT NOT NULL,
    PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;
