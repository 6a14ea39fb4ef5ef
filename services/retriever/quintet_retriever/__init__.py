"""The retriever service: keeps documents in PostgreSQL and searches their chunks."""
