-- Ratings of answers, one a rater and answer, with what the answer's record says of its making.
CREATE TABLE gateway.rating (
    tenant text COLLATE "C" NOT NULL DEFAULT gateway.tenant(),
    answer_id uuid NOT NULL,
    -- BLAKE2b of the rater.
    rater bytea NOT NULL CHECK (length(rater) = 16),
    score smallint NOT NULL CHECK (score BETWEEN 1 AND 5),
    comment text NOT NULL DEFAULT '',
    collection text NOT NULL,
    model text NOT NULL,
    model_revision text NOT NULL,
    template text NOT NULL,
    template_revision text NOT NULL,
    rated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, answer_id, rater)
);

CREATE INDEX rating_time ON gateway.rating (tenant, rated_at);

SELECT gateway.protect('gateway.rating');

-- Drops ratings that are older than `kept` days, and the oldest of tenants that have more than
-- `most`, at most `at_once` of each; returns how many. It is for all tenants at once, so it has
-- the owner's rights. One session does it at a time; another leaves it to that one.
CREATE FUNCTION gateway.trim_ratings(kept integer, most bigint, at_once bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    outdated bigint;
    beyond bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(5860671090862674962) THEN
        RETURN 0;
    END IF;
    DELETE FROM gateway.rating WHERE ctid IN (
        SELECT ctid FROM gateway.rating
        WHERE rated_at < now() - make_interval(days => kept) LIMIT at_once
    );
    GET DIAGNOSTICS outdated = ROW_COUNT;
    WITH over AS (
        SELECT tenant FROM gateway.rating GROUP BY tenant HAVING count(*) > most
    ), old AS (
        SELECT its.ctid
        FROM over, LATERAL (
            SELECT ctid FROM gateway.rating AS mine
            WHERE mine.tenant = over.tenant ORDER BY rated_at DESC OFFSET most
        ) AS its
        LIMIT at_once
    )
    DELETE FROM gateway.rating WHERE ctid IN (SELECT ctid FROM old);
    GET DIAGNOSTICS beyond = ROW_COUNT;
    RETURN outdated + beyond;
END
$$;
