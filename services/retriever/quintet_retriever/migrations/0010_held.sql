-- What the database holds, of all tenants together: sums for the metrics, and nobody's names.
-- The counts are kept by each writer: nothing is counted here.
CREATE FUNCTION retriever.held() RETURNS TABLE (
    collections bigint, documents bigint, chunks bigint, hnsw_bytes bigint, database_bytes bigint
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT count(*), coalesce(sum(c.document_count), 0)::bigint,
        coalesce(sum(c.chunk_count), 0)::bigint,
        (SELECT coalesce(sum(pg_relation_size(i.oid)), 0)::bigint FROM pg_class AS i
            JOIN pg_am AS a ON a.oid = i.relam
            WHERE a.amname = 'hnsw' AND i.relnamespace = 'retriever'::regnamespace),
        pg_database_size(current_database())
    FROM retriever.collection AS c;
END;

GRANT EXECUTE ON FUNCTION retriever.held TO PUBLIC;
