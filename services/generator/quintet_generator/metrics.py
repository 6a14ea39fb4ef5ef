"""Metrics that more than one backend keeps."""

from prometheus_client import Counter

DECODE_STEPS = Counter(
    "quintet_generator_decode_steps_total",
    "Forward passes of a model, by what they did; `batch` is a step of all running requests.",
    ("model", "phase"),
)
