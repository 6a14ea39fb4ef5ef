"""What the retrieval is worth on public collections: `python -m evaluation`."""
