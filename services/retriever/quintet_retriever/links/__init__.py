"""Links between the documents of a collection: read from texts, stated, suggested."""
