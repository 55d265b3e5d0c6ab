-- least-binary: 0.1.0
--
-- At most one job holds a unique key: from when it is enqueued until it has ended and its window has passed, whichever
-- comes later. To enqueue another with the same key meanwhile is to be told the id of the one that is there.
--
-- Nothing is written when a key becomes free: whoever enqueues with it next takes it away from the job that had it. So ends
-- and rescues know nothing of keys.

ALTER TABLE turnwise_jobs ADD COLUMN unique_key TEXT
    CONSTRAINT unique_key_has_1_to_256_bytes CHECK (length(CAST(unique_key AS BLOB)) BETWEEN 1 AND 256);
-- The end of the window; NULL: there is none, and the key is free when the job has ended.
ALTER TABLE turnwise_jobs ADD COLUMN unique_until INTEGER;
CREATE UNIQUE INDEX turnwise_jobs_unique_key ON turnwise_jobs (unique_key) WHERE unique_key IS NOT NULL;
