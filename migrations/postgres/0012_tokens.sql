-- least-binary: 0.1.0
--
-- Who may call a node's API, and what. A token itself stands nowhere: only its hash.

CREATE TABLE turnwise.tokens (
    name text PRIMARY KEY CONSTRAINT name_has_from_1_to_100_bytes CHECK (octet_length(name) BETWEEN 1 AND 100),
    role text NOT NULL CHECK (role IN ('read', 'enqueue', 'operate')),
    -- SHA-256 of the token, in hexadecimal digits.
    hash text NOT NULL UNIQUE CHECK (octet_length(hash) = 64),
    created_at timestamptz NOT NULL
);

-- Nodes read it: whoever was given the turn row is given this. Whoever may only enqueue is not, and nobody may write it but its
-- owner: a token opens more than the database does.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'turnwise.turn'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT ON turnwise.tokens TO %s', given.role);
    END LOOP;
END $$;
