-- least-binary: 0.1.0
--
-- Schedules: cron entries that insert jobs. The nodes compute the times; here it is only compared and set. A row that is
-- inserted by plain SQL is looked at with the next beat: its first time is the first one after that. To change one, write its
-- revision back to 0, or leave it to `turnwise schedules set`.
--
-- Each time is fired once: whoever fires it inserts its row into `firings` and its job in one transaction.

CREATE TABLE IF NOT EXISTS turnwise_schedules (
    name VARCHAR(255) NOT NULL PRIMARY KEY,
    cron TEXT NOT NULL,
    zone VARCHAR(255) NOT NULL DEFAULT 'UTC',
    misfire VARCHAR(16) NOT NULL DEFAULT 'once',
    misfire_limit INT NOT NULL DEFAULT 100,
    -- The job, as in turnwise_jobs.
    queue VARCHAR(255) NOT NULL DEFAULT 'default',
    method VARCHAR(255) NOT NULL DEFAULT 'POST',
    url TEXT NOT NULL,
    headers TEXT,
    body LONGBLOB,
    priority SMALLINT NOT NULL DEFAULT 0,
    max_attempts BIGINT NOT NULL DEFAULT 20,
    deadline_ms BIGINT NOT NULL DEFAULT 600000,
    created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- Since when nothing is fired; NULL: it is not paused.
    paused_at DATETIME(6),
    -- Counts the changes of the row; 0: no node has looked at it yet.
    revision BIGINT NOT NULL DEFAULT 0,
    -- The first time that has not been fired; NULL: there is none. Times are fired a little ahead.
    next_at DATETIME(6) DEFAULT '1970-01-01 00:00:00',
    last_at DATETIME(6),
    -- How many times were passed over, since nobody looked when they came.
    skipped BIGINT NOT NULL DEFAULT 0,
    -- Why nothing is fired, when the row says what cannot be.
    error TEXT,
    -- NULL while it is paused, so that the earliest of the others is found at once. A row that no node has looked at is due.
    due_at DATETIME(6) AS (
        CASE WHEN paused_at IS NOT NULL THEN NULL WHEN revision = 0 THEN TIMESTAMP'1970-01-01 00:00:00' ELSE next_at END
    ) VIRTUAL,
    INDEX turnwise_schedules_due (due_at),
    CONSTRAINT name_has_1_to_128_bytes CHECK (OCTET_LENGTH(name) BETWEEN 1 AND 128),
    CONSTRAINT cron_has_1_to_256_bytes CHECK (OCTET_LENGTH(cron) BETWEEN 1 AND 256),
    CONSTRAINT zone_has_1_to_64_bytes CHECK (OCTET_LENGTH(zone) BETWEEN 1 AND 64),
    CONSTRAINT misfire_is_skip_once_or_all CHECK (misfire IN ('skip', 'once', 'all')),
    CONSTRAINT misfire_limit_is_1_to_1000 CHECK (misfire_limit BETWEEN 1 AND 1000),
    CONSTRAINT schedules_queue_has_at_most_128_bytes CHECK (OCTET_LENGTH(queue) <= 128),
    CONSTRAINT schedules_method_has_at_most_32_bytes CHECK (OCTET_LENGTH(method) <= 32),
    CONSTRAINT schedules_url_has_at_most_8_kib CHECK (OCTET_LENGTH(url) <= 8192),
    CONSTRAINT schedules_headers_have_at_most_32_kib CHECK (OCTET_LENGTH(headers) <= 32768),
    CONSTRAINT schedules_priority_is_at_most_100 CHECK (priority BETWEEN -100 AND 100),
    CONSTRAINT schedules_max_attempts_is_at_least_1 CHECK (max_attempts >= 1),
    CONSTRAINT schedules_deadline_ms_is_at_least_1 CHECK (deadline_ms >= 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS turnwise_firings (
    schedule VARCHAR(255) NOT NULL,
    at DATETIME(6) NOT NULL,
    job VARCHAR(36) NOT NULL,
    PRIMARY KEY (schedule, at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
