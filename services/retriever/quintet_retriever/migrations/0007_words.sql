-- Languages of collections, and how many chunks have each word: what BM25 needs beside
-- the chunks themselves. docs/adr/0011 says why it is kept so.

-- No collection is made meanwhile; all that follows takes milliseconds.
LOCK TABLE retriever.collection IN ACCESS EXCLUSIVE MODE;

-- A configuration for each language that PostgreSQL stems, and for none ("simple").
-- Accents do not matter in any.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE format(
            'CREATE TEXT SEARCH CONFIGURATION retriever.%I (COPY = pg_catalog.%I)',
            'words_' || name, name
        );
        EXECUTE format(
            'ALTER TEXT SEARCH CONFIGURATION retriever.%I'
            ' ALTER MAPPING FOR hword, hword_part, word WITH unaccent, pg_catalog.%I',
            'words_' || name, CASE name WHEN 'simple' THEN name ELSE name || '_stem' END
        );
    END LOOP;
END
$$;

ALTER TABLE retriever.collection
    ADD COLUMN language text NOT NULL DEFAULT 'english',
    -- Raised each time that the words are counted.
    ADD COLUMN word_revision bigint NOT NULL DEFAULT 0,
    -- Chunks, and the mean of their tokens, when they were.
    ADD COLUMN counted_chunks bigint NOT NULL DEFAULT 0,
    ADD COLUMN mean_tokens float8 NOT NULL DEFAULT 1,
    -- Chunks that were written or deleted since.
    ADD COLUMN uncounted_chunks bigint NOT NULL DEFAULT 0;
UPDATE retriever.collection SET uncounted_chunks = chunk_count;

CREATE FUNCTION retriever.create_word_table(collection_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TABLE retriever.word_%s ('
        ' lexeme text COLLATE "C" PRIMARY KEY,'
        -- How many had it when they were counted.
        ' chunks bigint NOT NULL)',
        collection_id
    );
END
$$;
SELECT retriever.create_word_table(id) FROM retriever.collection;

CREATE FUNCTION retriever.create_collection_tables(
    collection_id bigint, dimension integer, hnsw_m integer, hnsw_ef_construction integer,
    language text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
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
            embedding vector(%2$s) NOT NULL,
            words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector(%5$L, text)) STORED,
            PRIMARY KEY (document_key, chunk_index)
        -- See 0001 for why.
        ) WITH (toast_tuple_target = 8160);
        CREATE INDEX ON retriever.chunk_%1$s
            USING hnsw ((embedding::halfvec(%2$s)) halfvec_cosine_ops)
            WITH (m = %3$s, ef_construction = %4$s);
        CREATE INDEX ON retriever.chunk_%1$s USING gin (words);
        $sql$,
        collection_id, dimension, hnsw_m, hnsw_ef_construction, 'retriever.words_' || language
    );
    PERFORM retriever.create_word_table(collection_id);
END
$$;

-- What a replica of the version before calls.
CREATE OR REPLACE FUNCTION retriever.create_collection_tables(
    collection_id bigint, dimension integer, hnsw_m integer, hnsw_ef_construction integer
) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    SELECT retriever.create_collection_tables(
        collection_id, dimension, hnsw_m, hnsw_ef_construction, 'english'
    );
END;

CREATE OR REPLACE FUNCTION retriever.drop_collection_tables(collection_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'DROP TABLE retriever.chunk_%1$s, retriever.document_%1$s, retriever.word_%1$s',
        collection_id
    );
END
$$;

-- Count the words of a collection anew; FALSE if another transaction is at it. Whoever
-- calls this must raise the collection's epoch in the same transaction: scores change.
CREATE FUNCTION retriever.count_words(collection_id bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    seen bigint;
    chunks bigint;
    mean float8;
BEGIN
    IF NOT pg_try_advisory_xact_lock(
        hashtextextended('retriever.count_words', collection_id)
    ) THEN
        RETURN FALSE;
    END IF;
    -- What is written from here on may be counted twice, and is never missed.
    SELECT uncounted_chunks INTO seen FROM retriever.collection WHERE id = collection_id;
    EXECUTE format(
        $sql$
        WITH counted AS MATERIALIZED (
            SELECT word, ndoc FROM ts_stat('SELECT words FROM retriever.chunk_%1$s')
        ), gone AS (
            DELETE FROM retriever.word_%1$s
            WHERE lexeme NOT IN (SELECT word FROM counted)
        )
        INSERT INTO retriever.word_%1$s AS w (lexeme, chunks) SELECT word, ndoc FROM counted
        ON CONFLICT (lexeme) DO UPDATE SET chunks = excluded.chunks
            WHERE w.chunks <> excluded.chunks
        $sql$,
        collection_id
    );
    EXECUTE format(
        'SELECT count(*), coalesce(avg(tokens), 1) FROM retriever.chunk_%s', collection_id
    ) INTO chunks, mean;
    UPDATE retriever.collection
    SET word_revision = word_revision + 1, counted_chunks = chunks, mean_tokens = mean,
        uncounted_chunks = greatest(uncounted_chunks - seen, 0)
    WHERE id = collection_id;
    RETURN TRUE;
END
$$;

-- Whether so many chunks changed that the words should be counted anew.
CREATE FUNCTION retriever.count_is_due(uncounted_chunks bigint, counted_chunks bigint)
RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN uncounted_chunks >= 16 + counted_chunks / 10;

-- The words of a small collection are counted by the writer, who raises the epoch
-- anyway: a thousand chunks take 30 ms. Larger ones are left to the retriever's task.
CREATE FUNCTION retriever.count_words_of_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM retriever.count_words(NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER count_words AFTER UPDATE ON retriever.collection
FOR EACH ROW WHEN (
    NEW.epoch <> OLD.epoch AND NEW.chunk_count <= 1000
    AND retriever.count_is_due(NEW.uncounted_chunks, NEW.counted_chunks)
) EXECUTE FUNCTION retriever.count_words_of_updated();
