-- Everything belongs to a tenant, and row-level security holds it: docs/adr/0016, docs/tenants.md.
-- What was there before belongs to the tenant "default".
--
-- All of this changes the catalog alone, but for two indexes that are built anew: that of
-- collections' names and that of request ids (three seconds for a million). Searches and
-- writes wait meanwhile: some 3 ms for each collection more.

-- No collection is made meanwhile.
LOCK TABLE retriever.collection IN ACCESS EXCLUSIVE MODE;

-- Rows that are there get a constant, which PostgreSQL keeps in the catalog.
ALTER TABLE retriever.collection ADD COLUMN tenant text COLLATE "C" NOT NULL DEFAULT 'default'
    CHECK (tenant ~ '^[a-z0-9-]{1,63}$');
ALTER TABLE retriever.change ADD COLUMN tenant text COLLATE "C" NOT NULL DEFAULT 'default';
ALTER TABLE retriever.request ADD COLUMN tenant text COLLATE "C" NOT NULL DEFAULT 'default';
ALTER TABLE retriever.outbox ADD COLUMN tenant text COLLATE "C" NOT NULL DEFAULT 'default';
-- A replica of the release before, which is the owner and names no tenant, writes for
-- "default"; whom row-level security holds must name one.
ALTER TABLE retriever.collection
    ALTER COLUMN tenant SET DEFAULT coalesce(retriever.tenant(), 'default');
ALTER TABLE retriever.change
    ALTER COLUMN tenant SET DEFAULT coalesce(retriever.tenant(), 'default');
ALTER TABLE retriever.request
    ALTER COLUMN tenant SET DEFAULT coalesce(retriever.tenant(), 'default');
ALTER TABLE retriever.outbox
    ALTER COLUMN tenant SET DEFAULT coalesce(retriever.tenant(), 'default');

-- Two tenants may each have a collection of a name, and a request of an id.
ALTER TABLE retriever.collection
    DROP CONSTRAINT collection_name_key,
    ADD CONSTRAINT collection_name_key UNIQUE (tenant, name);
ALTER TABLE retriever.request
    DROP CONSTRAINT request_pkey,
    ADD CONSTRAINT request_pkey PRIMARY KEY (tenant, id, item);

SELECT retriever.protect(each) FROM unnest(ARRAY[
    'retriever.collection', 'retriever.change', 'retriever.request', 'retriever.outbox'
]::regclass[]) AS each;

-- Give tables of a collection to its tenant. Searches read documents and chunks through
-- views: the index of words cannot serve a table with a policy, since its operator may
-- leak. Whose they are is asked once there, before a row is read.
CREATE FUNCTION retriever.give_to_tenant(collection_id bigint, tenant text, kinds text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kind text;
BEGIN
    FOREACH kind IN ARRAY kinds LOOP
        PERFORM retriever.protect(
            format('retriever.%s_%s', kind, collection_id)::regclass,
            format('retriever.tenant() = %L', tenant)
        );
        IF kind IN ('document', 'chunk') THEN
            EXECUTE format(
                'CREATE VIEW retriever.%1$ss_%2$s AS SELECT * FROM retriever.%1$s_%2$s'
                ' WHERE retriever.tenant() = %3$L',
                kind, collection_id, tenant
            );
            EXECUTE format('GRANT SELECT ON retriever.%ss_%s TO PUBLIC', kind, collection_id);
        END IF;
    END LOOP;
END
$$;

DO $$
DECLARE
    each record;
BEGIN
    FOR each IN SELECT c.id, c.tenant FROM retriever.collection AS c LOOP
        PERFORM retriever.give_to_tenant(
            each.id, each.tenant, ARRAY['document', 'chunk', 'word', 'name', 'link']
        );
    END LOOP;
END
$$;

-- What follows is done with the owner's rights. Each asks whose the collection is; one of
-- another tenant is as if it were not there.

CREATE OR REPLACE FUNCTION retriever.create_collection_tables(
    collection_id bigint, dimension integer, hnsw_m integer, hnsw_ef_construction integer,
    language text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Where the type is: that schema is not searched here.
    extension text := (
        SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'
    );
BEGIN
    IF NOT EXISTS (
        SELECT FROM retriever.collection AS c
        WHERE c.id = collection_id AND c.tenant = retriever.tenant()
    ) THEN
        RAISE undefined_table USING MESSAGE = 'there is no such collection';
    END IF;
    EXECUTE format(
        $sql$
        CREATE TABLE retriever.document_%1$s (
            key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            id text COLLATE "C" NOT NULL UNIQUE,
            title text NOT NULL,
            content text NOT NULL,
            content_length integer NOT NULL,
            content_hash text NOT NULL,
            metadata jsonb NOT NULL,
            version bigint NOT NULL DEFAULT 1,
            create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
            update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
            chunk_count integer NOT NULL DEFAULT 0
        );
        CREATE INDEX ON retriever.document_%1$s USING gin (metadata jsonb_path_ops);

        CREATE TABLE retriever.chunk_%1$s (
            document_key bigint NOT NULL
                REFERENCES retriever.document_%1$s ON DELETE CASCADE,
            chunk_index integer NOT NULL,
            start_char integer NOT NULL,
            end_char integer NOT NULL,
            tokens integer NOT NULL,
            text text NOT NULL,
            -- Of length 1.
            embedding %6$I.vector(%2$s) NOT NULL,
            words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector(%5$L, text)) STORED,
            PRIMARY KEY (document_key, chunk_index)
        -- See 0001 for why.
        ) WITH (toast_tuple_target = 8160);
        CREATE INDEX ON retriever.chunk_%1$s
            USING hnsw ((embedding::%6$I.halfvec(%2$s)) %6$I.halfvec_cosine_ops)
            WITH (m = %3$s, ef_construction = %4$s);
        CREATE INDEX ON retriever.chunk_%1$s USING gin (words);
        $sql$,
        collection_id, dimension, hnsw_m, hnsw_ef_construction, 'retriever.words_' || language,
        extension
    );
    PERFORM retriever.create_word_table(collection_id);
    PERFORM retriever.give_to_tenant(
        collection_id, retriever.tenant(), ARRAY['document', 'chunk', 'word']
    );
END
$$;

CREATE OR REPLACE FUNCTION retriever.collection_made() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM retriever.create_link_tables(NEW.id);
    PERFORM retriever.give_to_tenant(NEW.id, NEW.tenant, ARRAY['name', 'link']);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION retriever.collection_goes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP VIEW retriever.documents_%1$s, retriever.chunks_%1$s', OLD.id);
    EXECUTE format(
        'DROP TABLE retriever.link_%1$s, retriever.name_%1$s, retriever.chunk_%1$s,'
        ' retriever.document_%1$s, retriever.word_%1$s',
        OLD.id
    );
    RETURN OLD;
END
$$;

-- What a replica of the release before calls after that.
CREATE OR REPLACE FUNCTION retriever.drop_collection_tables(collection_id bigint) RETURNS void
LANGUAGE sql RETURN NULL;

ALTER FUNCTION retriever.count_words_of_updated()
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- For the task that counts the words of large collections, a tenant after the other.
CREATE FUNCTION retriever.due_collections() RETURNS TABLE (tenant text, id bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.tenant, c.id FROM retriever.collection AS c
    WHERE retriever.count_is_due(c.uncounted_chunks, c.counted_chunks);
END;

CREATE FUNCTION retriever.count_words_of(one bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM retriever.collection AS c WHERE c.id = one AND c.tenant = retriever.tenant()
    ) AND retriever.count_words(one);
END
$$;

CREATE OR REPLACE FUNCTION retriever.renew_collection(
    old retriever.collection, new_name text, new_description text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    new_id bigint;
    each text;
BEGIN
    UPDATE retriever.collection AS c
        SET id = DEFAULT, name = new_name, description = new_description
        WHERE c.id = old.id RETURNING c.id INTO new_id;
    FOR each IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'retriever'::regnamespace AND relkind IN ('r', 'v')
            AND relname ~ ('^[a-z]+_' || old.id || '$')
    LOOP
        EXECUTE format(
            'ALTER TABLE retriever.%I RENAME TO %I',
            each, replace(each, old.id::text, new_id::text)
        );
    END LOOP;
    DELETE FROM retriever.change AS c WHERE c.collection_id = old.id;
    INSERT INTO retriever.outbox (tenant, name, collection_id, epoch) VALUES
        -- The last epoch: that of a collection that was deleted.
        (old.tenant, old.name, old.id, 9223372036854775807),
        (old.tenant, new_name, new_id, old.epoch);
END
$$;

CREATE OR REPLACE FUNCTION retriever.switch_collections(
    one text, other text, expected_id bigint, expected_epoch bigint
) RETURNS TABLE (name text, id bigint, epoch bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ours text := retriever.tenant();
    first retriever.collection;
    second retriever.collection;
BEGIN
    -- Waits for writers of either, who hold a share of its row.
    SELECT * INTO first FROM retriever.collection AS c
        WHERE c.tenant = ours AND c.name = one FOR UPDATE;
    SELECT * INTO second FROM retriever.collection AS c
        WHERE c.tenant = ours AND c.name = other FOR UPDATE;
    IF first.id IS NULL OR second.id IS NULL THEN
        RETURN;
    END IF;
    IF first.id <> expected_id OR first.epoch <> expected_epoch THEN
        -- The code by which callers are told that another writer was faster.
        RAISE lock_not_available USING MESSAGE = 'the collection was written meanwhile';
    END IF;
    -- No name is there twice, not even within a transaction.
    UPDATE retriever.collection AS c SET name = '' WHERE c.id = second.id;
    PERFORM retriever.renew_collection(first, other, second.description);
    PERFORM retriever.renew_collection(second, one, first.description);
    RETURN QUERY SELECT c.name, c.id, c.epoch FROM retriever.collection AS c
        WHERE c.tenant = ours AND c.name IN (one, other);
END
$$;

CREATE OR REPLACE FUNCTION retriever.carry_links(one text, other text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours text := retriever.tenant();
    old_id bigint := (SELECT id FROM retriever.collection WHERE tenant = ours AND name = one);
    new_id bigint := (SELECT id FROM retriever.collection WHERE tenant = ours AND name = other);
BEGIN
    IF old_id IS NULL OR new_id IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format(
        $sql$
        DELETE FROM retriever.link_%2$s WHERE status <> 1;
        INSERT INTO retriever.link_%2$s (source_key, name, type, status, target, note,
            confidence, occurrences, occurrence_count, create_time)
        SELECT there.key, l.name, l.type, l.status, l.target, l.note,
            l.confidence, l.occurrences, l.occurrence_count, l.create_time
        FROM retriever.link_%1$s AS l
        JOIN retriever.document_%1$s AS here ON here.key = l.source_key
        JOIN retriever.document_%2$s AS there ON there.id = here.id
        WHERE l.status <> 1
        ON CONFLICT DO NOTHING;
        INSERT INTO retriever.name_%2$s (name, rank, document_id, document_key)
        SELECT n.name, n.rank, n.document_id, there.key
        FROM retriever.name_%1$s AS n
        JOIN retriever.document_%1$s AS here ON here.key = n.document_key
        JOIN retriever.document_%2$s AS there ON there.id = here.id
        WHERE n.rank = 6
        ON CONFLICT DO NOTHING;
        $sql$,
        old_id, new_id
    );
END
$$;

-- What the relay does for all tenants at once, and no more than that: it announces epochs,
-- vouches for the news, and drops what is too old.

CREATE FUNCTION retriever.outbox_rows(most integer) RETURNS TABLE (
    id bigint, tenant text, name text, collection_id bigint, epoch bigint, age float8
) LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT o.id, o.tenant, o.name, o.collection_id, o.epoch,
        extract(epoch FROM clock_timestamp() - o.create_time)::float8
    FROM retriever.outbox AS o ORDER BY o.id LIMIT most;
END;

CREATE FUNCTION retriever.outbox_done(ids bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    DELETE FROM retriever.outbox AS o WHERE o.id = ANY (ids);
END;

CREATE FUNCTION retriever.revocations() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT r.revocations FROM retriever.relay AS r);

-- The moment until when the news are trusted from now on, in seconds since 1970; NULL if
-- a writer has taken the trust back since its revocations were counted.
CREATE FUNCTION retriever.extend_trust(seconds float8, counted bigint) RETURNS float8
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE retriever.relay AS r
    SET trusted_until = clock_timestamp() + make_interval(secs => seconds)
    WHERE r.revocations = counted RETURNING extract(epoch FROM r.trusted_until)::float8;
END;

-- Take the trust in the news back; how many seconds some may still trust them.
CREATE FUNCTION retriever.revoke_trust() RETURNS float8
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE retriever.relay AS r SET revocations = r.revocations + 1
    RETURNING extract(epoch FROM r.trusted_until - clock_timestamp())::float8;
END;

CREATE FUNCTION retriever.prune(keep_changes bigint, keep_requests_seconds float8) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    DELETE FROM retriever.change AS c USING retriever.collection AS k
        WHERE c.collection_id = k.id AND c.epoch <= k.epoch - keep_changes;
    DELETE FROM retriever.request AS r
        WHERE r.create_time < clock_timestamp() - make_interval(secs => keep_requests_seconds);
END;

-- Of the functions the service may call these. PUBLIC is whoever may use the schema.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA retriever FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    retriever.tenant, retriever.count_is_due, retriever.create_collection_tables(
        bigint, integer, integer, integer, text
    ),
    retriever.carry_links, retriever.switch_collections, retriever.count_words_of,
    retriever.due_collections, retriever.outbox_rows, retriever.outbox_done,
    retriever.revocations, retriever.extend_trust, retriever.revoke_trust, retriever.prune
TO PUBLIC;
