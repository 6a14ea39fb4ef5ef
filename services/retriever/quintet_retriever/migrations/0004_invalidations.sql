-- Whether a change is no write but says that what was made before is out of date.
ALTER TABLE retriever.change ADD COLUMN invalidated boolean NOT NULL DEFAULT FALSE;
