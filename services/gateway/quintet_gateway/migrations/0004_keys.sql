-- API keys.
CREATE TABLE gateway.api_key (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL CHECK (tenant ~ '^[a-z0-9-]{1,63}$'),
    name text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    -- BLAKE2b of the secret's 256 random bits.
    hash bytea NOT NULL CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- Id of the key in whose place it came.
    replaces text NOT NULL DEFAULT ''
);

CREATE INDEX api_key_tenant ON gateway.api_key (tenant, id);

SELECT gateway.protect('gateway.api_key');

-- A key is found by its id before anybody knows whose it is.
CREATE FUNCTION gateway.find_api_key(wanted text) RETURNS SETOF gateway.api_key
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM gateway.api_key WHERE id = wanted
$$;
