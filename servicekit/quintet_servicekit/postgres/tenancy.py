"""The SQL by which the tables of a schema belong to tenants; docs/tenants.md has the pattern.

The migrator makes these functions in each schema before its first migration:

- `tenant()`: for whom the transaction is, by its setting `quintet.tenant`; NULL for nobody.
- `protect(table)`: from now on the table's rows are seen, and written, by the tenant in their
  column `tenant` alone; or by whoever the condition holds for that is given.
- `admit(role)`: let a role use the schema, unless it could pass by what `protect` made.

PUBLIC has the protected tables' privileges: without the use of the schema they are none.
"""

from __future__ import annotations

from psycopg import sql

SETTING = "quintet.tenant"
"""The setting of a transaction that names its tenant."""

_FUNCTIONS = """
CREATE OR REPLACE FUNCTION {schema}.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(pg_catalog.current_setting('quintet.tenant', TRUE), '');

CREATE OR REPLACE FUNCTION {schema}.protect(
    protected regclass, mine text DEFAULT 'tenant = ' || {literal} || '.tenant()'
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', protected);
    EXECUTE format('CREATE POLICY tenant ON %s USING (%s)', protected, mine);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO PUBLIC', protected);
END
$$;

CREATE OR REPLACE FUNCTION {schema}.admit(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_roles AS r
        WHERE pg_has_role(role, r.oid, 'MEMBER') AND (
            r.rolsuper OR r.rolbypassrls OR r.rolcreaterole
            OR r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = {literal})
        )
    ) THEN
        RAISE insufficient_privilege USING MESSAGE = 'the role could read every tenant''s rows';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', {literal}, role);
END
$$;

REVOKE EXECUTE ON FUNCTION {schema}.protect, {schema}.admit FROM PUBLIC;
"""


def functions(schema: str) -> sql.Composed:
    """Return the statements that make a schema's functions."""
    return sql.SQL(_FUNCTIONS).format(schema=sql.Identifier(schema), literal=sql.Literal(schema))
