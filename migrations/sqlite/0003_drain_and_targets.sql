-- least-binary: 0.1.0
--
-- What a person asks of a node, and what a node says of its web apps. A binary that knows neither column leaves them
-- alone: it does not hear that it is asked to drain.

-- When somebody asked the node to leave the ring, finish what it runs and exit; by the server's clock. A node that comes
-- back has another row.
ALTER TABLE turnwise_nodes ADD COLUMN drain_asked_at INTEGER;
-- A JSON list of {"origin", "answers", "since"}, at most 4 KiB of it. Written when it changes, never by a beat.
ALTER TABLE turnwise_nodes ADD COLUMN targets TEXT;
