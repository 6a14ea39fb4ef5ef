-- Records belong to tenants, and row-level security holds it: docs/tenants.md.
-- The days' own tables are reached through this one alone.
SELECT gateway.protect('gateway.answer');

-- Days are made, and dropped, for all tenants at once.
ALTER FUNCTION gateway.renew_answer_days(integer, boolean)
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
