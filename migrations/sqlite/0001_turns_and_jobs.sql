-- least-binary: 0.1.0
--
-- The turn row, the nodes, the beats, the jobs and their attempts. Times are microseconds since the Unix
-- epoch. Defaults use nothing that is newer than SQLite 3.37, since it is the app's own SQLite that
-- evaluates them.

CREATE TABLE turnwise_turn (
    id INTEGER PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    epoch INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    slot INTEGER NOT NULL DEFAULT 0,
    previous INTEGER NOT NULL DEFAULT 0,
    bias INTEGER NOT NULL DEFAULT 0,
    period_ms INTEGER CHECK (period_ms BETWEEN 50 AND 10000),
    next_period_ms INTEGER CHECK (next_period_ms BETWEEN 50 AND 10000),
    next_period_from INTEGER,
    versions TEXT NOT NULL DEFAULT '[]',
    deputies TEXT NOT NULL DEFAULT '[]',
    marks TEXT NOT NULL DEFAULT '{}',
    beaten_at INTEGER,
    refused INTEGER NOT NULL DEFAULT 0,
    stale_ends INTEGER NOT NULL DEFAULT 0,
    CHECK ((next_period_ms IS NULL) = (next_period_from IS NULL))
) STRICT;
INSERT INTO turnwise_turn DEFAULT VALUES;

CREATE TABLE turnwise_nodes (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'left', 'lost')),
    lease_until INTEGER NOT NULL,
    token_floor INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL,
    last_check_in INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    running INTEGER NOT NULL DEFAULT 0,
    offset_us INTEGER,
    offset_error_us INTEGER,
    transit_us INTEGER,
    version TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an accepted beat: anyone can check that the farm polls once a period.
CREATE TABLE turnwise_beats (
    slot INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    arrived_at INTEGER NOT NULL,
    claimed INTEGER NOT NULL
) STRICT;

-- `INSERT INTO turnwise_jobs (url) VALUES ('/jobs/x')` is enough, in the app's own transaction. The id is
-- a UUID, version 7, in lower case. A body may be given as text or as a blob.
CREATE TABLE turnwise_jobs (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (
        printf('%08x', CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) >> 16)
        || '-'
        || printf('%04x', CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) & 65535)
        || '-7' || substr(lower(hex(randomblob(2))), 2)
        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(lower(hex(randomblob(2))), 2)
        || '-' || lower(hex(randomblob(6)))
    ) CONSTRAINT id_is_a_uuid_in_lower_case CHECK (
        length(id) = 36 AND id NOT GLOB '*[^0-9a-f-]*' AND id GLOB '????????-????-????-????-????????????'
        AND length(replace(id, '-', '')) = 32),
    queue TEXT NOT NULL DEFAULT 'default',
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'succeeded', 'dead', 'cancelled')),
    method TEXT NOT NULL DEFAULT 'POST',
    url TEXT NOT NULL,
    headers TEXT,
    body ANY,
    priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    scheduled_at INTEGER NOT NULL
        DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000),
    created_at INTEGER NOT NULL
        DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000),
    -- When scheduled_at was last set: tells, after a step of the clock, what was due from what was to wait.
    queued_at INTEGER NOT NULL
        DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000),
    max_attempts INTEGER NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    deadline_ms INTEGER NOT NULL DEFAULT 600000 CHECK (deadline_ms >= 1),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt BETWEEN 0 AND 1000000),
    hand_backs INTEGER NOT NULL DEFAULT 0 CHECK (hand_backs BETWEEN 0 AND 1000000),
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    node TEXT,
    token INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    last_status INTEGER,
    last_error TEXT,
    CHECK (state <> 'running' OR (node IS NOT NULL AND token IS NOT NULL AND started_at IS NOT NULL)),
    -- A claim is as large as its jobs: each has an end. (A body that is too long is not read.)
    CONSTRAINT queue_has_at_most_128_bytes CHECK (length(CAST(queue AS BLOB)) <= 128),
    CONSTRAINT method_has_at_most_32_bytes CHECK (length(CAST(method AS BLOB)) <= 32),
    CONSTRAINT url_has_at_most_8_kib CHECK (length(CAST(url AS BLOB)) <= 8192),
    CONSTRAINT headers_have_at_most_32_kib CHECK (length(CAST(headers AS BLOB)) <= 32768)
) STRICT;

-- Jobs of one queue and priority are due in the order of their times: a lane. A claim looks at the head of
-- each lane, so that it never reads a job that is not due, however many wait.
CREATE INDEX turnwise_jobs_queued ON turnwise_jobs (queue, priority, scheduled_at)
    WHERE state = 'queued';
CREATE INDEX turnwise_jobs_running ON turnwise_jobs (node) WHERE state = 'running';

-- One row an attempt that has ended; a running one stands in its job's row alone.
CREATE TABLE turnwise_attempts (
    job TEXT NOT NULL,
    node TEXT NOT NULL,
    token INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    answer BLOB,
    PRIMARY KEY (job, node, token)
) STRICT, WITHOUT ROWID;
