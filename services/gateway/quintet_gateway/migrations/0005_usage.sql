-- Usage by tenant, day, collection, key and model. A call adds 1 to `calls` of each model that
-- took part in it, and of the model '', which stands for what no model does: so the sum of
-- that one is the number of calls.
CREATE TABLE gateway.usage (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    collection text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    calls bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    embedding_tokens bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    saved_nanos bigint NOT NULL,
    PRIMARY KEY (tenant, day, collection, key, model, currency)
);

-- The sum of its costs by tenant and day, which budgets are held against.
CREATE TABLE gateway.spending (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    currency text COLLATE "C" NOT NULL,
    cost_nanos bigint NOT NULL,
    PRIMARY KEY (tenant, day, currency)
);

-- How many bytes of each of the gateways' spool files are counted above. It moves in the
-- transaction that counts them, so nothing is counted twice.
CREATE TABLE gateway.usage_spool (
    id uuid PRIMARY KEY,
    counted bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

SELECT gateway.protect('gateway.usage');
SELECT gateway.protect('gateway.spending');
-- The spools hold all tenants' calls; of them there is nothing but a number here.
SELECT gateway.protect('gateway.usage_spool', 'true');

-- Moves the mark of a spool. Fails where it is not where the writer thinks it is.
CREATE FUNCTION gateway.count_spool(spool uuid, counted_before bigint, counted_now bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint;
BEGIN
    INSERT INTO gateway.usage_spool (id, counted) VALUES (spool, 0) ON CONFLICT DO NOTHING;
    UPDATE gateway.usage_spool SET counted = counted_now, at = now()
    WHERE id = spool AND counted = counted_before;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved = 0 THEN
        RAISE EXCEPTION 'the spool was counted by another' USING ERRCODE = 'QS001';
    END IF;
END
$$;

-- What several tenants have spent since some day, for who holds their budgets.
CREATE FUNCTION gateway.spent_since(tenants text[], first_days date[], wanted text)
RETURNS TABLE (place bigint, cost_nanos bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT asked.place, coalesce(sum(its.cost_nanos), 0)::bigint
    FROM unnest(tenants, first_days) WITH ORDINALITY AS asked (tenant, day, place)
    LEFT JOIN gateway.spending AS its
        ON its.tenant = asked.tenant AND its.day >= asked.day AND its.currency = wanted
    GROUP BY asked.place
$$;
