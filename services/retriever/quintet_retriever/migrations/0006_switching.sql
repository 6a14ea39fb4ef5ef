-- Give a collection another name and a new id, under which its tables stand then.
CREATE FUNCTION retriever.renew_collection(
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
        WHERE relnamespace = 'retriever'::regnamespace AND relkind = 'r'
            AND relname ~ ('^[a-z]+_' || old.id || '$')
    LOOP
        EXECUTE format(
            'ALTER TABLE retriever.%I RENAME TO %I',
            each, replace(each, old.id::text, new_id::text)
        );
    END LOOP;
    DELETE FROM retriever.change AS c WHERE c.collection_id = old.id;
    INSERT INTO retriever.outbox (name, collection_id, epoch) VALUES
        -- The last epoch: that of a collection that was deleted.
        (old.name, old.id, 9223372036854775807),
        (new_name, new_id, old.epoch);
END
$$;

-- Two collections exchange their names in one transaction: how one that was built anew
-- beside another, with another embedding model, takes its place, and how it goes back.
-- Both get a new id, as if each had been deleted and made anew with all that it holds:
-- what was kept of either is out of date, and keys that replicas remember lead nowhere.
CREATE FUNCTION retriever.switch_collections(
    one text, other text, expected_id bigint, expected_epoch bigint
) RETURNS TABLE (name text, id bigint, epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    first retriever.collection;
    second retriever.collection;
BEGIN
    -- Waits for writers of either, who hold a share of its row.
    SELECT * INTO first FROM retriever.collection AS c WHERE c.name = one FOR UPDATE;
    SELECT * INTO second FROM retriever.collection AS c WHERE c.name = other FOR UPDATE;
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
        WHERE c.name IN (one, other);
END
$$;
