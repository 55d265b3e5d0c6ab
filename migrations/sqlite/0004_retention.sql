-- least-binary: 0.1.0
--
-- Ended jobs are removed when they are old enough: by their state and the time of their end, the oldest first, however
-- many there are. Only an ended job has an end, so that one which waits or runs has no entry here.

CREATE INDEX turnwise_jobs_ended ON turnwise_jobs (state, finished_at) WHERE finished_at IS NOT NULL;
