-- least-binary: 0.1.0
--
-- The turn row, the nodes, the beats, the jobs and their attempts. Times are DATETIME(6) in UTC, whatever the
-- time zone of the session that writes them: microseconds, from the year 1000 to 9999. (A TIMESTAMP would end in
-- 2038 and be ambiguous for an hour a year in a session with daylight saving time.)
--
-- A statement that changes the schema cannot be rolled back: each of these can be run again when the one after it
-- failed. Written for MariaDB 10.6 and for MySQL 8.0.16, which are the first to have all of it.
--
-- Texts are compared byte by byte, but for spaces at their ends (utf8mb4_bin is the only such collation that both
-- have). A column is larger than its limit, so that the limit is what speaks, even in a session whose sql_mode
-- cuts off what is too long.

CREATE TABLE IF NOT EXISTS turnwise_turn (
    id TINYINT NOT NULL PRIMARY KEY DEFAULT 1,
    epoch BIGINT NOT NULL DEFAULT 0,
    high BIGINT NOT NULL DEFAULT 0,
    slot BIGINT NOT NULL DEFAULT 0,
    previous BIGINT NOT NULL DEFAULT 0,
    bias BIGINT NOT NULL DEFAULT 0,
    period_ms INT,
    next_period_ms INT,
    next_period_from BIGINT,
    versions LONGTEXT NOT NULL DEFAULT ('[]'),
    deputies LONGTEXT NOT NULL DEFAULT ('[]'),
    marks LONGTEXT NOT NULL DEFAULT ('{}'),
    beaten_at DATETIME(6),
    refused BIGINT NOT NULL DEFAULT 0,
    stale_ends BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT turnwise_turn_is_one_row CHECK (id = 1),
    CONSTRAINT turnwise_period CHECK (period_ms BETWEEN 50 AND 10000),
    CONSTRAINT turnwise_next_period CHECK (next_period_ms BETWEEN 50 AND 10000),
    CONSTRAINT turnwise_next_period_has_a_slot CHECK ((next_period_ms IS NULL) = (next_period_from IS NULL))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO turnwise_turn (id) VALUES (1) ON DUPLICATE KEY UPDATE id = turnwise_turn.id;

CREATE TABLE IF NOT EXISTS turnwise_nodes (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    state VARCHAR(16) NOT NULL DEFAULT 'live',
    lease_until DATETIME(6) NOT NULL,
    token_floor BIGINT NOT NULL DEFAULT 0,
    started_at DATETIME(6) NOT NULL,
    last_check_in DATETIME(6) NOT NULL,
    capacity BIGINT NOT NULL,
    running BIGINT NOT NULL DEFAULT 0,
    offset_us BIGINT,
    offset_error_us BIGINT,
    transit_us BIGINT,
    version VARCHAR(64) NOT NULL,
    CONSTRAINT turnwise_node_state CHECK (state IN ('live', 'left', 'lost'))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row an accepted beat: anyone can check that the farm polls once a period.
CREATE TABLE IF NOT EXISTS turnwise_beats (
    slot BIGINT NOT NULL PRIMARY KEY,
    node VARCHAR(36) NOT NULL,
    arrived_at DATETIME(6) NOT NULL,
    claimed BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- `INSERT INTO turnwise_jobs (url) VALUES ('/jobs/x')` is enough, in the app's own transaction. The id is a UUID,
-- version 7, in lower case; its random part comes from the server's own UUID(), since not every server that is
-- served has RANDOM_BYTES().
CREATE TABLE IF NOT EXISTS turnwise_jobs (
    id VARCHAR(36) NOT NULL DEFAULT (
        LOWER(CONCAT(
            LPAD(HEX(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 65536000), 8, '0'), '-',
            LPAD(HEX(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000 MOD 65536), 4, '0'),
            '-7', SUBSTR(MD5(CONCAT(UUID(), RAND())), 1, 3), '-',
            SUBSTR('89ab', 1 + FLOOR(RAND() * 4), 1), SUBSTR(MD5(CONCAT(UUID(), RAND())), 1, 3), '-',
            SUBSTR(MD5(CONCAT(UUID(), RAND())), 1, 12)))
    ),
    queue VARCHAR(255) NOT NULL DEFAULT 'default',
    state VARCHAR(16) NOT NULL DEFAULT 'queued',
    method VARCHAR(255) NOT NULL DEFAULT 'POST',
    url TEXT NOT NULL,
    headers TEXT,
    body LONGBLOB,
    priority SMALLINT NOT NULL DEFAULT 0,
    scheduled_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- When scheduled_at was last set: tells, after a step of the clock, what was due from what was to wait.
    queued_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    max_attempts BIGINT NOT NULL DEFAULT 20,
    deadline_ms BIGINT NOT NULL DEFAULT 600000,
    attempt BIGINT NOT NULL DEFAULT 0,
    hand_backs BIGINT NOT NULL DEFAULT 0,
    cancel_requested TINYINT NOT NULL DEFAULT 0,
    node VARCHAR(36),
    token BIGINT,
    started_at DATETIME(6),
    finished_at DATETIME(6),
    last_status INT,
    last_error MEDIUMTEXT,
    PRIMARY KEY (id),
    -- Jobs of one queue and priority are due in the order of their times: a lane. A claim looks at the head of
    -- each lane, so that it never reads a job that is not due, however many wait.
    INDEX turnwise_jobs_queued (state, queue, priority, scheduled_at),
    INDEX turnwise_jobs_running (state, node),
    CONSTRAINT id_is_a_uuid_in_lower_case CHECK (CHAR_LENGTH(id) = 36
        AND id REGEXP '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    CONSTRAINT state_is_one_of_five CHECK (state IN ('queued', 'running', 'succeeded', 'dead', 'cancelled')),
    CONSTRAINT priority_is_at_most_100 CHECK (priority BETWEEN -100 AND 100),
    CONSTRAINT max_attempts_is_at_least_1 CHECK (max_attempts >= 1),
    CONSTRAINT deadline_ms_is_at_least_1 CHECK (deadline_ms >= 1),
    CONSTRAINT attempt_is_within_a_million CHECK (attempt BETWEEN 0 AND 1000000),
    CONSTRAINT hand_backs_is_within_a_million CHECK (hand_backs BETWEEN 0 AND 1000000),
    CONSTRAINT cancel_requested_is_0_or_1 CHECK (cancel_requested IN (0, 1)),
    CONSTRAINT what_runs_has_a_claim CHECK (
        state <> 'running' OR (node IS NOT NULL AND token IS NOT NULL AND started_at IS NOT NULL)),
    -- A claim is as large as its jobs: each has an end. (A body that is too long is not read.)
    CONSTRAINT queue_has_at_most_128_bytes CHECK (OCTET_LENGTH(queue) <= 128),
    CONSTRAINT method_has_at_most_32_bytes CHECK (OCTET_LENGTH(method) <= 32),
    CONSTRAINT url_has_at_most_8_kib CHECK (OCTET_LENGTH(url) <= 8192),
    CONSTRAINT headers_have_at_most_32_kib CHECK (OCTET_LENGTH(headers) <= 32768)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row an attempt that has ended; a running one stands in its job's row alone.
CREATE TABLE IF NOT EXISTS turnwise_attempts (
    job VARCHAR(36) NOT NULL,
    node VARCHAR(36) NOT NULL,
    token BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    started_at DATETIME(6) NOT NULL,
    finished_at DATETIME(6) NOT NULL,
    status INT,
    error MEDIUMTEXT,
    answer MEDIUMBLOB,
    PRIMARY KEY (job, node, token)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
