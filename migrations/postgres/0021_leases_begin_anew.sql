-- least-binary: 0.1.0
--
-- Leases begin anew when the clock was set back. Until now a node that had checked in on the new clock before anybody beat on it was
-- declared lost, though it lived, when the database was away for longer than a lease before the next beat: its jobs ran twice.

-- A beat, as 0016 has it, but for the leases when the clock was set back.
CREATE OR REPLACE FUNCTION turnwise.turn_beat(
    p_node uuid, p_believed bigint, p_token bigint, p_limit integer, p_bytes bigint,
    p_queues text[], p_except text[], p_lanes text[], p_priorities smallint[], p_from bigint[],
    p_running integer, p_offset_us bigint, p_offset_error_us bigint, p_transit_us bigint
) RETURNS SETOF turnwise.beat_answer LANGUAGE plpgsql AS $$
DECLARE
    r turnwise.turn;
    at timestamptz;
    lowest bigint;
    accepted boolean;
    rows bigint;
    claimed bigint := 0;
    changed bigint := 0;
    begun timestamptz := clock_timestamp();
    freed bigint := 0;
    full_look boolean := p_lanes IS NULL;
    looked_us bigint;
    due timestamptz;
    lanes text[] := p_lanes;
    priorities smallint[] := p_priorities;
    rooms turnwise.room[];
    kept record;
BEGIN
    SELECT NULL::bigint AS until_one_ends, NULL::bigint AS wait_us INTO kept;
    SELECT t.* INTO r FROM turnwise.turn t WHERE t.id = 1 FOR UPDATE;
    at := turnwise.clock();
    r := turnwise.stamped(r, turnwise.micros(at), p_node, p_believed);
    lowest := turnwise.check_in(
        p_node, at, r.period_ms, p_running, p_offset_us, p_offset_error_us, p_transit_us);
    accepted := r.slot < r.high;
    IF accepted THEN
        r.previous := r.slot;
        r.slot := r.high;
        IF at < r.beaten_at THEN
            -- The clock was set back: what was due stays due, and every lease of a live node begins anew. By the last
            -- beat, which is of the clock before, nobody can tell who has checked in since, or for how long the
            -- database was away. No other lease outlasts its length.
            UPDATE turnwise.nodes n SET lease_until = at + turnwise.lease(r.period_ms)
            WHERE n.state = 'live' OR n.lease_until > at + turnwise.lease(r.period_ms);
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
            UPDATE turnwise.jobs j SET
                queued_at = at,
                scheduled_at = CASE
                    WHEN j.attempt > 0 THEN j.scheduled_at - (j.queued_at - at)
                    WHEN j.scheduled_at <= j.queued_at THEN least(j.scheduled_at, at)
                    ELSE j.scheduled_at END
            WHERE j.id IN (
                SELECT q.id FROM turnwise.jobs q
                WHERE q.state = 'queued' AND q.queued_at > at FOR UPDATE SKIP LOCKED);
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        IF r.slot - r.previous = 2 THEN
            -- A living node may not have reached the database in the missed slot either: the slot counts for
            -- no lease. (A node that checked in last at c is then found by the first beat from c + 3.5 P on,
            -- at the latest at c + 4.5 P: no later than one whose missed slot comes after its lease.)
            UPDATE turnwise.nodes n SET
                lease_until = n.lease_until + r.period_ms * interval '1 millisecond'
            WHERE n.lease_until >= r.beaten_at;
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        IF r.slot - r.previous >= 2 THEN
            changed := changed + turnwise.put_off(r.beaten_at, at);
        END IF;
        IF r.slot - r.previous > 2 THEN
            -- Nobody beat for a while: the database was away, not the nodes. (A live node that holds jobs had its lease at
            -- the last beat, or would have been declared lost by it. That its lease ends before that beat may be the
            -- clock's doing, which was set back and has come to that time again.)
            UPDATE turnwise.nodes n SET lease_until = at + turnwise.lease(r.period_ms)
            WHERE n.state = 'live' OR n.lease_until >= r.beaten_at;
            GET DIAGNOSTICS rows = ROW_COUNT;
            changed := changed + rows;
        END IF;
        freed := turnwise.rescue(at, r.slot % 64 = 0 OR r.slot - r.previous > 2 OR at < r.beaten_at);
        changed := changed + freed;
        -- What went back into the queue now may lie before every mark.
        full_look := full_look OR changed > 0;
        IF p_limit > 0 AND p_token >= lowest THEN
            begun := clock_timestamp();
            -- A beat that came a little before its boundary claims what is due on it.
            due := greatest(at, least(
                turnwise.instant((r.slot - r.bias) * r.period_ms * 1000), at + interval '5 ms'));
            IF full_look THEN
                SELECT l.queues, l.priorities INTO lanes, priorities
                FROM turnwise.lanes(p_queues, p_except) l;
            END IF;
            rooms := turnwise.rooms(lanes, due, at);
            IF rooms IS NULL THEN
                RETURN QUERY SELECT
                    c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                    NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                    NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint
                FROM turnwise.take_from(
                    p_node, p_token, p_limit, p_bytes, lanes, priorities,
                    CASE WHEN NOT full_look THEN p_from END, due, at) c;
                GET DIAGNOSTICS claimed = ROW_COUNT;
            ELSE
                RETURN QUERY SELECT
                    c.*, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
                    NULL::integer, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::text,
                    NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, NULL::bigint
                FROM turnwise.take_within(
                    rooms, p_node, p_token, p_limit, p_bytes, lanes, priorities,
                    CASE WHEN NOT full_look THEN p_from END, due, at) c;
                GET DIAGNOSTICS claimed = ROW_COUNT;
                SELECT k.* INTO kept FROM turnwise.took(rooms, p_node, p_token, lanes, priorities, due, at) k;
            END IF;
            looked_us := (extract(epoch FROM clock_timestamp() - begun) * 1000000)::bigint;
        END IF;
        r.beaten_at := at;
        INSERT INTO turnwise.beats (slot, node, arrived_at, claimed)
        VALUES (r.slot, p_node, now(), claimed)
        ON CONFLICT (slot) DO UPDATE SET
            node = excluded.node, arrived_at = excluded.arrived_at, claimed = excluded.claimed;
        IF r.slot % 64 = 0 THEN
            DELETE FROM turnwise.beats b WHERE b.slot IN (
                SELECT o.slot FROM turnwise.beats o WHERE o.slot <= r.slot - 86400
                ORDER BY o.slot LIMIT 1000);
        END IF;
    ELSE
        r.refused := r.refused + 1;
    END IF;
    UPDATE turnwise.turn t SET
        high = r.high, slot = r.slot, previous = r.previous, bias = r.bias, period_ms = r.period_ms,
        next_period_ms = r.next_period_ms, next_period_from = r.next_period_from, marks = r.marks,
        beaten_at = r.beaten_at, refused = r.refused
    WHERE t.id = 1;
    IF claimed + changed = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY SELECT
        NULL::text, kept.until_one_ends, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bytea,
        kept.wait_us, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::bigint, looked_us, turnwise.micros(due),
        CASE WHEN full_look THEN lanes END, CASE WHEN full_look THEN priorities END,
        lowest IS NULL,
        r.epoch, r.high, r.slot, r.previous, r.bias, r.period_ms, r.next_period_ms,
        r.next_period_from, r.versions::text, r.deputies::text, r.marks::text,
        turnwise.server_started(), turnwise.server_timeline(), accepted,
        turnwise.micros(now()), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;
