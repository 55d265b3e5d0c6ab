-- least-binary: 0.1.0
--
-- Jobs that were given up or cancelled are few among many and are looked for by people. They are the only ended
-- jobs with an index: one for all would cost every job that succeeds. One for each, since SQLite takes an index only
-- where the query says the index's own condition.

CREATE INDEX turnwise_jobs_dead ON turnwise_jobs (id) WHERE state = 'dead';
CREATE INDEX turnwise_jobs_cancelled ON turnwise_jobs (id) WHERE state = 'cancelled';
