-- least-binary: 0.1.0
--
-- Jobs that were given up or cancelled are few among many and are looked for by people. They are the only ended
-- jobs with an index: one for all would cost every job that succeeds.

CREATE INDEX jobs_given_up ON turnwise.jobs (state, id) WHERE state IN ('dead', 'cancelled');
