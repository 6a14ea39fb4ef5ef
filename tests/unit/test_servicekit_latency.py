"""What is known of how long calls take."""

from __future__ import annotations

from quintet_servicekit.latency import Latency


def test_a_latency_is_what_nine_of_ten_of_the_last_calls_took() -> None:
    latency = Latency(calls=64, share=0.9)
    assert latency.quantile == 0
    for seconds in range(1, 11):
        latency.add(seconds)
    assert latency.quantile == 9
    for _ in range(64):
        latency.add(0.5)
    assert latency.quantile == 0.5
