"""Programs that a bench measures and runs as processes of their own, some of them with
the Python of another environment: each imports nothing of ours that it does not need."""
