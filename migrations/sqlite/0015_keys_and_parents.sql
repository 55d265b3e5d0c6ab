-- least-binary: 0.1.0
--
-- Concurrency keys: of the jobs of a queue that have the same one, no more run at once than the queue says. And queues that are held
-- back for a while since a target asks for it. A binary that does not know the columns claims all the same. And which job has
-- enqueued a job.

-- So many jobs with the same concurrency key run at once; NULL: any number.
ALTER TABLE turnwise_queues ADD COLUMN concurrency_per_key INTEGER
    CONSTRAINT concurrency_per_key_is_1_to_a_million CHECK (concurrency_per_key BETWEEN 1 AND 1000000);
-- For so long it is held back at most when a target answers 429 or 503 with Retry-After; NULL: it is not.
ALTER TABLE turnwise_queues ADD COLUMN slow_down_ms INTEGER
    CONSTRAINT slow_down_is_1_s_to_24_h CHECK (slow_down_ms BETWEEN 1000 AND 86400000);
-- Until when it is held back.
ALTER TABLE turnwise_queues ADD COLUMN slowed_until INTEGER;
-- Behind which key the first jobs of keys are looked for next, where very many wait; NULL: from the first.
ALTER TABLE turnwise_queues ADD COLUMN keys_from TEXT;

ALTER TABLE turnwise_jobs ADD COLUMN concurrency_key TEXT
    CONSTRAINT concurrency_key_has_1_to_256_bytes CHECK (length(CAST(concurrency_key AS BLOB)) BETWEEN 1 AND 256);
-- Finds the first job of each key of a lane, however many wait for the same one.
CREATE INDEX turnwise_jobs_keyed ON turnwise_jobs (queue, priority, concurrency_key, scheduled_at)
    WHERE state = 'queued' AND concurrency_key IS NOT NULL;

-- The job that has enqueued it.
ALTER TABLE turnwise_jobs ADD COLUMN parent TEXT
    CONSTRAINT parent_has_at_most_64_bytes CHECK (length(CAST(parent AS BLOB)) <= 64);

ALTER TABLE turnwise_schedules ADD COLUMN concurrency_key TEXT
    CONSTRAINT concurrency_key_has_1_to_256_bytes CHECK (length(CAST(concurrency_key AS BLOB)) BETWEEN 1 AND 256);
