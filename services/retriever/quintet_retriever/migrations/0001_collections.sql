-- Collections, and the functions that make and drop the tables of one.
-- Each collection has a document and a chunk table of its own: docs/adr/0001.

CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS unaccent;

DO $$
BEGIN
    -- Filtered searches rest on iterative index scans, which came with 0.8.
    IF (SELECT string_to_array(extversion, '.')::integer[] < ARRAY[0, 8]
        FROM pg_extension WHERE extname = 'vector') THEN
        RAISE EXCEPTION 'the extension vector must be updated to 0.8 or later';
    END IF;
END
$$;

-- English stems; accents do not matter. Words of other languages match as they are.
CREATE TEXT SEARCH CONFIGURATION retriever.words (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION retriever.words
    ALTER MAPPING FOR hword, hword_part, word WITH unaccent, pg_catalog.english_stem;

-- A query for any word of a text: a question seldom has all its words in one chunk.
-- NULL for a text without a word.
CREATE FUNCTION retriever.any_word_query(words text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (
        SELECT string_agg(
            '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' | '
        )::tsquery
        FROM unnest(to_tsvector('retriever.words', words))
    );

CREATE TABLE retriever.collection (
    -- Names the collection's tables; never used twice.
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    embedding_model text NOT NULL,
    embedding_revision text NOT NULL,
    dimension integer NOT NULL CHECK (dimension BETWEEN 1 AND 4000),
    description text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Kept by each writer in its own transaction.
    document_count bigint NOT NULL DEFAULT 0 CHECK (document_count >= 0),
    chunk_count bigint NOT NULL DEFAULT 0 CHECK (chunk_count >= 0)
) WITH (fillfactor = 50); -- room for the counts' updates within the page

CREATE FUNCTION retriever.create_collection_tables(
    collection_id bigint, dimension integer, hnsw_m integer, hnsw_ef_construction integer
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
            words tsvector NOT NULL
                GENERATED ALWAYS AS (to_tsvector('retriever.words', text)) STORED,
            PRIMARY KEY (document_key, chunk_index)
        -- Vectors of up to 1,900 dimensions stay in the row: comparing 10,000 of
        -- 384 then takes 9 ms instead of 26.
        ) WITH (toast_tuple_target = 8160);
        -- Half precision: half the memory, and up to 4,000 dimensions; the
        -- candidates are then ordered by the whole vectors.
        CREATE INDEX ON retriever.chunk_%1$s
            USING hnsw ((embedding::halfvec(%2$s)) halfvec_cosine_ops)
            WITH (m = %3$s, ef_construction = %4$s);
        CREATE INDEX ON retriever.chunk_%1$s USING gin (words);
        $sql$,
        collection_id, dimension, hnsw_m, hnsw_ef_construction
    );
END
$$;

CREATE FUNCTION retriever.drop_collection_tables(collection_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'DROP TABLE retriever.chunk_%1$s, retriever.document_%1$s', collection_id
    );
END
$$;
