-- least-binary: 0.1.0
--
-- What a role may do here, granted in one call by whoever owns the tables. No role is made: their names are the whole server's, and
-- not every owner may make one. What was granted stands in the privileges alone.
--
-- PostgreSQL lets everybody call a new function. As long as no function has more rights than its caller, that is left as it is. The
-- first role that may enqueue and nothing else ends it: from then on the two functions that enqueue have their owner's rights, and
-- no function here is everybody's. Who could call them before still can.

-- Says what is in the way, before anything is granted to `role` or taken from it.
CREATE FUNCTION turnwise.check_grant(role name) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role) THEN
        RAISE EXCEPTION 'there is no role "%"', role
            USING ERRCODE = 'undefined_object',
                HINT = CASE WHEN role = 'public' THEN 'Name the roles: nothing is granted to everybody.'
                    ELSE format('Make it: CREATE ROLE %I LOGIN.', role) END;
    END IF;
    SELECT c.relowner INTO owner FROM pg_class c WHERE c.oid = 'turnwise.jobs'::regclass;
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'the tables of turnwise belong to "%"', pg_get_userbyid(owner)
            USING ERRCODE = 'insufficient_privilege',
                HINT = format('Connect as %I and say it again.', pg_get_userbyid(owner));
    END IF;
END $$;

-- Let `role` into the schema.
CREATE FUNCTION turnwise.let_in(role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid;
BEGIN
    IF has_schema_privilege(role, 'turnwise', 'USAGE') THEN
        RETURN;
    END IF;
    -- Somebody else may have made it beforehand.
    SELECT n.nspowner INTO owner FROM pg_namespace n WHERE n.nspname = 'turnwise';
    IF NOT pg_has_role(owner, 'USAGE') AND NOT has_schema_privilege('turnwise', 'USAGE WITH GRANT OPTION') THEN
        RAISE EXCEPTION 'the schema turnwise belongs to "%"', pg_get_userbyid(owner)
            USING ERRCODE = 'insufficient_privilege',
                HINT = format('As %I, run: GRANT USAGE ON SCHEMA turnwise TO %I; then say this again.',
                    pg_get_userbyid(owner), role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA turnwise TO %I', role);
END $$;

-- Those that were given a privilege on a function, as they are written in a GRANT; nobody when the function is everybody's still.
CREATE FUNCTION turnwise.callers_of(what regprocedure) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT quote_ident(pg_get_userbyid(a.grantee))), '{}')
    FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
    WHERE p.oid = what AND a.grantee NOT IN (0, p.proowner) AND a.privilege_type = 'EXECUTE'
$$;

-- No function of the schema is everybody's any more. Each is given to who could use it: one that enqueues to who may insert jobs,
-- the others to whom the schema is open. Said again after a migration (`p_again`), a new function is given to who may
-- call the old ones; nothing is done if functions were not closed before.
CREATE FUNCTION turnwise.close_functions(p_again boolean) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    are_closed CONSTANT boolean := NOT has_function_privilege('public', 'turnwise.uuid7()', 'EXECUTE');
    callers text[];
    enqueuers text[];
    f record;
    caller text;
BEGIN
    IF are_closed THEN
        -- Neither of the two is ever dropped: what was granted on them stays, whatever a migration makes anew.
        callers := turnwise.callers_of('turnwise.uuid7()');
        enqueuers := turnwise.callers_of('turnwise.enqueue_many(jsonb)');
    ELSIF p_again THEN
        RETURN;
    ELSIF has_schema_privilege('public', 'turnwise', 'USAGE') THEN
        RAISE EXCEPTION 'the schema turnwise is open to everybody'
            USING ERRCODE = 'invalid_grant_operation',
                HINT = 'Run: REVOKE USAGE ON SCHEMA turnwise FROM PUBLIC; grant it to the roles that need it; then say this again.';
    ELSE
        -- Who reads or writes all tables of the database has no entry of its own.
        SELECT coalesce(array_agg(quote_ident(r.rolname)), '{}'),
            coalesce(array_agg(quote_ident(r.rolname)) FILTER (
                WHERE has_table_privilege(r.oid, 'turnwise.jobs', 'INSERT')), '{}')
        INTO callers, enqueuers
        FROM pg_roles r
        WHERE r.rolname IN ('pg_read_all_data', 'pg_write_all_data') OR r.oid IN (
            SELECT a.grantee FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
            WHERE n.nspname = 'turnwise' AND a.grantee <> n.nspowner AND a.privilege_type = 'USAGE');
    END IF;
    FOR f IN
        SELECT p.oid::regprocedure AS signature, p.proname IN ('enqueue', 'enqueue_many') AS enqueues, p.prosecdef,
            has_function_privilege('public', p.oid, 'EXECUTE') AS is_open
        FROM pg_proc p WHERE p.pronamespace = 'turnwise'::regnamespace AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        IF f.is_open THEN
            EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', f.signature);
            FOREACH caller IN ARRAY CASE WHEN f.enqueues THEN enqueuers ELSE callers END LOOP
                EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', f.signature, caller);
            END LOOP;
        END IF;
        -- After it is nobody's: with the rights of its owner, and no name but the system's found by a path.
        IF f.enqueues AND NOT f.prosecdef THEN
            EXECUTE format('ALTER ROUTINE %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', f.signature);
        END IF;
    END LOOP;
END $$;

-- For who owns the tables -------------------------------------------------------------------------------

-- `role` may call turnwise.enqueue and turnwise.enqueue_many, and nothing else.
CREATE FUNCTION turnwise.grant_enqueue(role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
BEGIN
    PERFORM turnwise.check_grant(role);
    -- Before it is let in: it is none of those who could call every function.
    PERFORM turnwise.close_functions(false);
    PERFORM turnwise.let_in(role);
    FOR f IN
        SELECT p.oid::regprocedure AS signature FROM pg_proc p
        WHERE p.pronamespace = 'turnwise'::regnamespace AND p.proname IN ('enqueue', 'enqueue_many')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f.signature, role);
    END LOOP;
END $$;

-- `role` may do what nodes do, and the commands that give orders. It changes no schema, and makes no token.
CREATE FUNCTION turnwise.grant_node(role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
BEGIN
    PERFORM turnwise.check_grant(role);
    PERFORM turnwise.let_in(role);
    FOR t IN
        SELECT c.relname AS name FROM pg_class c
        WHERE c.relnamespace = 'turnwise'::regnamespace AND c.relkind IN ('r', 'p', 'v')
    LOOP
        EXECUTE format('GRANT %s ON turnwise.%I TO %I', CASE
            WHEN t.name IN ('migrations', 'tokens') THEN 'SELECT'
            WHEN t.name = 'secrets' THEN 'SELECT, INSERT'
            WHEN t.name = 'audit' THEN 'SELECT, INSERT, DELETE'
            ELSE 'SELECT, INSERT, UPDATE, DELETE' END, t.name, role);
    END LOOP;
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA turnwise TO %I', role);
    EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA turnwise TO %I', role);
END $$;

-- `role` may read everything but the secrets and the hashes of tokens, and change nothing. The functions that it may call have no more
-- rights than it has.
CREATE FUNCTION turnwise.grant_read(role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    f record;
BEGIN
    PERFORM turnwise.check_grant(role);
    PERFORM turnwise.let_in(role);
    FOR t IN
        SELECT c.relname AS name FROM pg_class c
        WHERE c.relnamespace = 'turnwise'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND c.relname NOT IN ('secrets', 'tokens')
    LOOP
        EXECUTE format('GRANT SELECT ON turnwise.%I TO %I', t.name, role);
    END LOOP;
    EXECUTE format('GRANT SELECT (name, role, created_at) ON turnwise.tokens TO %I', role);
    FOR f IN
        SELECT p.oid::regprocedure AS signature FROM pg_proc p
        WHERE p.pronamespace = 'turnwise'::regnamespace AND p.proname NOT IN ('enqueue', 'enqueue_many')
            AND NOT p.prosecdef
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', f.signature, role);
    END LOOP;
END $$;

-- `role` may do nothing here, as far as it was granted to this very role. Before a role is dropped.
CREATE FUNCTION turnwise.revoke_all(role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM turnwise.check_grant(role);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA turnwise FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA turnwise FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA turnwise FROM %I', role);
    EXECUTE format('REVOKE ALL ON SCHEMA turnwise FROM %I', role);
END $$;
