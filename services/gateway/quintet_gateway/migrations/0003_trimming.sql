-- Drops the oldest records of tenants that have more than `most`, at most `at_once` of them;
-- returns how many. It is for all tenants at once, so it has the owner's rights. One session
-- does it at a time; another leaves it to that one.
CREATE FUNCTION gateway.trim_answers(most bigint, at_once bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(5860671090862674961) THEN
        RETURN 0;
    END IF;
    WITH over AS (
        SELECT tenant FROM gateway.answer GROUP BY tenant HAVING count(*) > most
    ), newest AS (
        SELECT tenant, (
            SELECT id FROM gateway.answer AS its
            WHERE its.tenant = over.tenant ORDER BY id DESC OFFSET most LIMIT 1
        ) AS id
        FROM over
    ), old AS (
        SELECT its.id
        FROM newest JOIN gateway.answer AS its ON its.tenant = newest.tenant AND its.id <= newest.id
        LIMIT at_once
    )
    DELETE FROM gateway.answer AS its USING old WHERE its.id = old.id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$;
