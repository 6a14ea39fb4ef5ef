"""What tenants use: an outbox on disk, sums in PostgreSQL, and who tells of them."""
