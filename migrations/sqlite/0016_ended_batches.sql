-- least-binary: 0.1.0
--
-- Ended batches of which no job is left are found when they are old enough: by how they ended and when, the oldest first. One that goes
-- on has no entry.

CREATE INDEX turnwise_batches_ended ON turnwise_batches (state, ended_at) WHERE ended_at IS NOT NULL;
