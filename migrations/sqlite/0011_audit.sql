-- least-binary: 0.1.0
--
-- Who ordered what: a row for each order that people gave and that was carried out. Nothing else reads it.

CREATE TABLE turnwise_audit (
    id INTEGER PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL CHECK (length(CAST(actor AS BLOB)) BETWEEN 1 AND 200),
    role TEXT NOT NULL CHECK (length(CAST(role AS BLOB)) BETWEEN 1 AND 16),
    action TEXT NOT NULL CHECK (length(CAST(action AS BLOB)) BETWEEN 1 AND 32),
    subject TEXT NOT NULL CHECK (length(CAST(subject AS BLOB)) <= 512),
    -- How many it touched; none: the database's answer was lost, and it may have been carried out.
    affected INTEGER
) STRICT;

-- They are the most, and the first to go.
CREATE INDEX turnwise_audit_of_enqueues ON turnwise_audit (id) WHERE action = 'job.enqueue';
