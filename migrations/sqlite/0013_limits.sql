-- least-binary: 0.1.0
--
-- How many jobs of a queue run at once, and how many are claimed in a time, on all nodes together. A binary that does not know the
-- columns claims without a limit.

ALTER TABLE turnwise_queues ADD COLUMN concurrency INTEGER
    CONSTRAINT concurrency_is_1_to_a_million CHECK (concurrency BETWEEN 1 AND 1000000);
-- So many jobs in so many milliseconds.
ALTER TABLE turnwise_queues ADD COLUMN rate_jobs INTEGER
    CONSTRAINT rate_jobs_is_1_to_a_million CHECK (rate_jobs BETWEEN 1 AND 1000000);
ALTER TABLE turnwise_queues ADD COLUMN rate_per_ms INTEGER
    CONSTRAINT rate_per_is_1_ms_to_24_h CHECK (rate_per_ms BETWEEN 1 AND 86400000);
-- So many of them at once after a time without any; NULL: as many as rate_jobs.
ALTER TABLE turnwise_queues ADD COLUMN rate_burst INTEGER
    CONSTRAINT rate_burst_is_1_to_a_million CHECK (rate_burst BETWEEN 1 AND 1000000);
-- When all of the burst may be claimed again; NULL: now.
ALTER TABLE turnwise_queues ADD COLUMN rate_full_at INTEGER;
