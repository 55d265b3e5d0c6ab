-- least-binary: 0.1.0
--
-- An outage counts for no deadline of a job that goes on elsewhere. `awaits_until` is the end of it, where `started_at` and
-- `deadline_ms` alone do not say it; one that lies before that is of an earlier attempt, and means nothing. Of the turn row, `away_us`
-- is how long nobody beat between the beats of `away_from` and `away_until`: the last outage, with those that came less than a
-- minute before. A binary that does not know the columns puts off the time by which such a job is to be heard of, and no more.

ALTER TABLE turnwise_jobs ADD COLUMN awaits_until INTEGER;
ALTER TABLE turnwise_turn ADD COLUMN away_from INTEGER;
ALTER TABLE turnwise_turn ADD COLUMN away_until INTEGER;
ALTER TABLE turnwise_turn ADD COLUMN away_us INTEGER;
