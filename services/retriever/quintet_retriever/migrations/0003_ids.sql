-- Ids of collections begin at the milliseconds since 1970, so that those of a database
-- made anew are none that caches beside the old one know. Those that exist keep theirs.
DO $$
DECLARE
    first bigint := greatest(
        floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        (SELECT max(id) + 1 FROM retriever.collection)
    );
BEGIN
    EXECUTE format('ALTER TABLE retriever.collection ALTER COLUMN id RESTART WITH %s', first);
END
$$;
