-- least-binary: 0.1.0
--
-- Who may call a node's API, and what. A token itself stands nowhere: only its hash.

CREATE TABLE turnwise_tokens (
    name TEXT PRIMARY KEY NOT NULL
        CONSTRAINT name_has_from_1_to_100_bytes CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 100),
    role TEXT NOT NULL CHECK (role IN ('read', 'enqueue', 'operate')),
    -- SHA-256 of the token, in hexadecimal digits.
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
