-- Epochs of collections: what was written when, and what is still to be announced.
-- docs/adr/0005 says what rests on these.

ALTER TABLE retriever.collection ADD COLUMN epoch bigint NOT NULL DEFAULT 0;

-- One row each time that a collection's epoch was raised, so that those after an epoch
-- are all there if they are as many as the epochs after it.
CREATE TABLE retriever.change (
    collection_id bigint NOT NULL,
    epoch bigint NOT NULL,
    -- NULL: the whole collection.
    document_key bigint,
    PRIMARY KEY (collection_id, epoch)
);

-- Epochs that the relay has still to announce.
CREATE TABLE retriever.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL,
    epoch bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Until when those who follow the announcements may trust them.
CREATE TABLE retriever.relay (
    single boolean PRIMARY KEY DEFAULT TRUE CHECK (single),
    trusted_until timestamptz NOT NULL DEFAULT '-infinity',
    -- Raised by each writer whose announcement failed.
    revocations bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO retriever.relay DEFAULT VALUES;
