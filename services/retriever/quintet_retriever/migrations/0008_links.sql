-- Links between documents: each collection has tables of its own for them, as for its
-- documents (docs/adr/0001). Why they are kept unresolved is in docs/adr/0012.

CREATE FUNCTION retriever.create_link_tables(collection_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        $sql$
        -- The names that a document is found by. The first row of a name has it.
        CREATE TABLE retriever.name_%1$s (
            name text COLLATE "C" NOT NULL,
            -- quintet_retriever.links.models.Rank.
            rank smallint NOT NULL,
            document_id text COLLATE "C" NOT NULL,
            document_key bigint NOT NULL
                REFERENCES retriever.document_%1$s ON DELETE CASCADE,
            PRIMARY KEY (name, rank, document_id)
        );
        CREATE INDEX ON retriever.name_%1$s (document_key);

        CREATE TABLE retriever.link_%1$s (
            source_key bigint NOT NULL
                REFERENCES retriever.document_%1$s ON DELETE CASCADE,
            -- What the target is looked up by.
            name text COLLATE "C" NOT NULL,
            -- quintet_retriever.links.models.LinkType and Status.
            type smallint NOT NULL,
            status smallint NOT NULL,
            target text NOT NULL,
            note text NOT NULL DEFAULT '',
            confidence real,
            occurrences jsonb NOT NULL DEFAULT '[]',
            occurrence_count integer NOT NULL DEFAULT 0,
            create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (source_key, name, type)
        );
        CREATE INDEX ON retriever.link_%1$s (name);
        $sql$,
        collection_id
    );
END
$$;

-- By triggers, so that a replica of the release before, which knows nothing of links,
-- makes and deletes collections with them all the same.
CREATE FUNCTION retriever.collection_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM retriever.create_link_tables(NEW.id);
    RETURN NULL;
END
$$;

CREATE FUNCTION retriever.collection_goes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE retriever.link_%1$s, retriever.name_%1$s', OLD.id);
    RETURN OLD;
END
$$;

-- After the statement that makes the collection, which makes its other tables too.
CREATE TRIGGER made AFTER INSERT ON retriever.collection
    FOR EACH ROW EXECUTE FUNCTION retriever.collection_made();
CREATE TRIGGER goes BEFORE DELETE ON retriever.collection
    FOR EACH ROW EXECUTE FUNCTION retriever.collection_goes();

-- Documents that exist are found by their ids; their other names and their links are read
-- when they are next written.
DO $$
DECLARE
    each bigint;
BEGIN
    FOR each IN SELECT id FROM retriever.collection LOOP
        PERFORM retriever.create_link_tables(each);
        EXECUTE format(
            'INSERT INTO retriever.name_%1$s (name, rank, document_id, document_key)'
            ' SELECT ''id:'' || id, 0, id, key FROM retriever.document_%1$s'
            ' WHERE octet_length(id) <= 900',
            each
        );
    END LOOP;
END
$$;

-- Give `other`, which is to take the place of `one`, what callers said of the links
-- between documents, and former names: neither stands in a document.
CREATE FUNCTION retriever.carry_links(one text, other text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    old_id bigint := (SELECT id FROM retriever.collection WHERE name = one);
    new_id bigint := (SELECT id FROM retriever.collection WHERE name = other);
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
