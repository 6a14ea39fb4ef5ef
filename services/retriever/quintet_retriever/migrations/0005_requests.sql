-- Writes whose callers gave them a request id, so that one that is repeated is not
-- applied again; docs/adr/0009 says what follows.
CREATE TABLE retriever.request (
    id uuid NOT NULL,
    -- Place in the request: a batch of documents is as many transactions.
    item integer NOT NULL,
    -- SHA-256 of what was asked for.
    digest bytea NOT NULL,
    -- What the write's transaction returned; NULL if there was nothing to write to.
    result jsonb,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, item)
);
CREATE INDEX ON retriever.request (create_time);
