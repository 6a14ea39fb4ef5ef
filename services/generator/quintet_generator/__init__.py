"""The generator service: writes an answer from a question and passages."""
