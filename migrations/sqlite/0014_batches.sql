-- least-binary: 0.1.0
--
-- Batches: jobs that belong together, and jobs that wait until those have ended. Whether a batch has ended is read from the states of
-- its jobs, under the lock of its row; nothing is counted as jobs end, so that ends and rescues know nothing of batches. A binary
-- that does not know them runs their jobs, and a newer one ends them.

CREATE TABLE turnwise_batches (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT CONSTRAINT name_has_at_most_256_bytes CHECK (length(CAST(name AS BLOB)) <= 256),
    -- Open: anybody may add jobs, and it does not end. Sealed: it ends with the last of its jobs.
    state TEXT NOT NULL DEFAULT 'open'
        CONSTRAINT state_of_a_batch CHECK (state IN ('open', 'sealed', 'succeeded', 'failed', 'cancelled')),
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    -- When a sealed one is looked at next; NULL: it is not.
    look_at INTEGER,
    -- How many of its jobs ended how, as it was when it ended.
    succeeded INTEGER,
    dead INTEGER,
    cancelled INTEGER
) STRICT;
CREATE INDEX turnwise_batches_look ON turnwise_batches (look_at) WHERE look_at IS NOT NULL;

-- A job that waits for a batch is put off until 2260, and has a row here; the row stays when the job runs.
CREATE TABLE turnwise_waits (
    job TEXT PRIMARY KEY NOT NULL,
    batch TEXT NOT NULL,
    -- It runs only if all jobs of the batch succeeded.
    on_success INTEGER NOT NULL CHECK (on_success IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX turnwise_waits_batch ON turnwise_waits (batch, job);

ALTER TABLE turnwise_jobs ADD COLUMN batch TEXT;
CREATE INDEX turnwise_jobs_batch ON turnwise_jobs (batch, state) WHERE batch IS NOT NULL;
CREATE INDEX turnwise_jobs_batch_id ON turnwise_jobs (batch, id) WHERE batch IS NOT NULL;
