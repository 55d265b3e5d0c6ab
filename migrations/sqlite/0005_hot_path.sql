-- least-binary: 0.1.0
--
-- An attempt that succeeded stands in its job's row alone: `node`, `token`, `attempt`, `started_at`, `finished_at`,
-- `last_status`, and here the kept part of the answer. A row in `turnwise_attempts` have those alone that did not succeed,
-- which are few. A binary that does not know the column writes such a row for each, and leaves this one NULL: whoever shows
-- attempts passes over the job's row where there is one.

ALTER TABLE turnwise_jobs ADD COLUMN answer BLOB;
