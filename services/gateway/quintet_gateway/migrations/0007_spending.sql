-- What several tenants have spent between days, for who holds their budgets.
DROP FUNCTION gateway.spent_since(text[], date[], text);

CREATE FUNCTION gateway.spent_between(
    tenants text[], firsts date[], ends date[], wanted text
) RETURNS TABLE (place bigint, cost_nanos bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT asked.place, coalesce(sum(its.cost_nanos), 0)::bigint
    FROM unnest(tenants, firsts, ends) WITH ORDINALITY AS asked (tenant, first, "end", place)
    LEFT JOIN gateway.spending AS its
        ON its.tenant = asked.tenant AND its.currency = wanted
        AND its.day >= asked.first AND its.day < asked."end"
    GROUP BY asked.place
$$;
