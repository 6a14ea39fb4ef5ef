"""Benchmarks: `python -m bench`. Every published figure, side by side with what a user
would pick instead; see docs/benchmarks.md."""
