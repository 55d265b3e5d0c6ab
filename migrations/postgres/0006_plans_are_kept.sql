-- least-binary: 0.1.0
--
-- Two small functions, planned once a session: until now every claim, end and renewal parsed and planned them anew, since a
-- function in SQL that cannot be put into the query that calls it is planned whenever it is called. What they mean stays.

CREATE OR REPLACE FUNCTION turnwise.period_ms() RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT t.period_ms FROM turnwise.turn t WHERE t.id = 1), 1000);
END $$;

-- An instant and an interval make an instant by the session's time zone: said to be immutable it was not put into its caller.
ALTER FUNCTION turnwise.check_in_is_due(timestamptz, timestamptz, timestamptz, integer) STABLE;
