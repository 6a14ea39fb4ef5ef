"""The embedder: texts into vectors, batched across callers."""
