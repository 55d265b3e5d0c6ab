-- least-binary: 0.1.0
--
-- Who may call a node's API, and what. A token itself stands nowhere: only its hash.

CREATE TABLE IF NOT EXISTS turnwise_tokens (
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    role VARCHAR(16) NOT NULL,
    -- SHA-256 of the token, in hexadecimal digits.
    hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    created_at DATETIME(6) NOT NULL,
    CONSTRAINT token_name_has_from_1_to_100_bytes CHECK (OCTET_LENGTH(name) BETWEEN 1 AND 100),
    CONSTRAINT token_has_a_role CHECK (role IN ('read', 'enqueue', 'operate'))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
