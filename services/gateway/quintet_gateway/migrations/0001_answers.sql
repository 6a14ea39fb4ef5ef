-- Records of answers, by day. An id is a UUIDv7: its first 48 bits are the milliseconds since
-- 1970, so a range of ids is a range of time, and who has an id has its day.
CREATE TABLE gateway.answer (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    -- The API key or subject by which the question came in.
    key text NOT NULL,
    -- quintet.gateway.v1.AnswerRecord
    record bytea NOT NULL
) PARTITION BY RANGE (id);

CREATE INDEX answer_tenant ON gateway.answer (tenant, id);

CREATE FUNCTION gateway.first_answer_id(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(extract(epoch FROM day)::bigint * 1000), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of the days around today, for clocks that differ and for replicas that
-- are late, and drops those of which the whole is older than `kept` days. One session does it:
-- another waits for that one if `waits`, and leaves it to that one if not. Returns whether it
-- was done.
CREATE FUNCTION gateway.renew_answer_days(kept integer, waits boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    lock CONSTANT bigint := 5860671090862674960;
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    old text;
BEGIN
    IF waits THEN
        PERFORM pg_advisory_xact_lock(lock);
    ELSIF NOT pg_try_advisory_xact_lock(lock) THEN
        RETURN false;
    END IF;
    FOR day IN SELECT today + it FROM generate_series(-1, 2) AS it LOOP
        IF to_regclass('gateway.answer_' || to_char(day, 'YYYYMMDD')) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE gateway.%I PARTITION OF gateway.answer FOR VALUES FROM (%L) TO (%L)',
                'answer_' || to_char(day, 'YYYYMMDD'),
                gateway.first_answer_id(day),
                gateway.first_answer_id(day + 1)
            );
        END IF;
    END LOOP;
    FOR old IN
        SELECT relname
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'gateway.answer'::regclass
            AND relname < 'answer_' || to_char(today - kept, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE gateway.%I', old);
    END LOOP;
    RETURN true;
END
$$;
